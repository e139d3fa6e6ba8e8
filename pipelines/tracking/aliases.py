"""The versions behind a model's aliases, read from a local store's database without MLflow.

To import MLflow and to open its store takes three seconds: longer than a job with nothing to do.
"""

import contextlib
import sqlite3
from pathlib import Path

from pipelines.lake.config import LakeConfig
from pipelines.tracking import places
from pipelines.tracking.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION

QUERY = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"


def versions_by_alias(config: LakeConfig, name: str) -> dict[str, int]:
    """Return the version behind each of our aliases that is set; empty for an unknown model.

    MLflow is asked if the store is not local, or has other tables than today's MLflow makes.
    """
    versions = _read_locally(config, name)
    if versions is not None:
        return versions
    from pipelines.tracking import registry
    from pipelines.tracking.store import connect

    client = connect(config)
    aliases = (CHALLENGER, CHAMPION, PREVIOUS_CHAMPION)
    numbers = {alias: registry.version_number(client, name, alias) for alias in aliases}
    return {alias: number for alias, number in numbers.items() if number is not None}


def version_number(config: LakeConfig, name: str, alias_or_version: str) -> int:
    """Return the version behind an alias, or a version number as it is: it may not exist.

    Raises InputError for an alias that is not set.
    """
    if alias_or_version.isascii() and alias_or_version.isdigit():
        return int(alias_or_version)
    versions = _read_locally(config, name) or {}
    if alias_or_version in versions:
        return versions[alias_or_version]
    from pipelines.tracking import registry
    from pipelines.tracking.store import connect

    return int(registry.resolve(connect(config), name, alias_or_version).version)


def local_database(config: LakeConfig) -> Path:
    """Return the file of a local lake's MLflow store; IntegrityError if a link leads elsewhere."""
    places.require_inside(config.lake_path)
    return config.lake_path / "mlflow" / "mlflow.db"


def _read_locally(config: LakeConfig, name: str) -> dict[str, int] | None:
    """Return the aliases in a local store's database; None if it cannot be read this way."""
    if not config.is_local:
        return None
    database = local_database(config)
    if not database.is_file():
        return {}
    try:
        uri = f"{database.as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return dict(connection.execute(QUERY, (name,)).fetchall())
    except sqlite3.Error:
        return None

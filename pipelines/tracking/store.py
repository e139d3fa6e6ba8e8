"""The MLflow store: where it is, how to connect, and the rules of Unity Catalog's registry."""

import contextlib
import logging
import os
import re
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines.errors import InputError, SetupError
from pipelines.lake.config import LakeConfig
from pipelines.program import first_cause
from pipelines.tracking import places
from pipelines.tracking.aliases import local_database

log = logging.getLogger("reviewlake")

UNITY = ("databricks-uc", "uc:")
MAX_CHARACTERS = 1_000  # maximum length of a tag in Unity Catalog
# The stores' error codes for a model or an alias that does not exist.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def uris(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the tracking and registry URIs of a lake that is not local.

    By default both are the Databricks workspace.
    """
    tracking = environment.get("MLFLOW_TRACKING_URI", "databricks")
    unity = re.sub("^databricks(?!-uc)", "databricks-uc", tracking)
    return tracking, environment.get("MLFLOW_REGISTRY_URI", unity)


def require_place(config: LakeConfig, environment: Mapping[str, str]) -> None:
    """Raise InputError if tables are in an object store and no MLflow server is named."""
    if not config.catalog and "MLFLOW_TRACKING_URI" not in environment:
        raise InputError(
            f"--lake {config.lake}: expected MLFLOW_TRACKING_URI to name an MLflow server or "
            "database, but it is not set. An object store holds only tables. Set this variable "
            "for every job."
        )


def is_ours(name: str, config: LakeConfig) -> bool:
    """Return True if the model belongs to the lake.

    Unity Catalog's registry is shared; a model's name there includes its schema.
    """
    ours = {f"{config.catalog}.{schema}".lower() for schema in config.schema_names.values()}
    return name.count(".") != 2 or name.rpartition(".")[0].lower() in ours


def tag_name(registry_uri: str, name: str) -> str:
    """Return a valid tag name for the registry: Unity Catalog forbids . , - = / : and blanks."""
    return re.sub(r"[.,\-=/:\s]", "_", name) if registry_uri.startswith(UNITY) else name


def version_tags(registry_uri: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a model version that the registry accepts, with valid names.

    Unity Catalog limits their length. The manifest is too long; it is in ops.models too.
    """
    is_unity = registry_uri.startswith(UNITY)
    return {
        tag_name(registry_uri, name): value
        for name, value in tags.items()
        if not is_unity or len(value) <= MAX_CHARACTERS
    }


def tag_of(version: ModelVersion, name: str) -> str | None:
    """Return a tag of a model version by the name that version_tags was given; None if not set."""
    return version.tags.get(tag_name(mlflow.get_registry_uri(), name))


def connect(config: LakeConfig) -> MlflowClient:
    """Connect to the lake's own store (sqlite, no server), or to the workspace under a catalog.

    Under a catalog, MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI can name another store.
    A store of a local lake that was moved or copied gets its places rewritten first.
    Raises SetupError if the store is unreadable.
    """
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow")
    database = local_database(config) if config.is_local else None
    if database:
        database.parent.mkdir(parents=True, exist_ok=True)
        _create_whole(database)
        mlflow.set_tracking_uri(_uri_of(database))
        # Else MLFLOW_REGISTRY_URI would take the models elsewhere.
        mlflow.set_registry_uri(mlflow.get_tracking_uri())
    else:
        require_place(config, os.environ)
        tracking, registry = uris(os.environ)
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)
    try:
        if database:
            places.rewrite_moved(database, config.lake_path, config.lock_wait_s)
        client = MlflowClient()  # opens the store
        client.search_experiments(max_results=1)
    except _store_errors() as error:
        raise unreadable(error) from error
    return client


def _store_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a store: those of SQLAlchemy only if MLflow has imported it."""
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    own = (sqlalchemy.SQLAlchemyError,) if sqlalchemy else ()
    return (MlflowException, sqlite3.Error, *own)


def _create_whole(database: Path) -> None:
    """Create an empty store atomically.

    MLflow creates the tables one by one, and cannot open a store that has only some of them.
    """
    if database.exists():
        return
    with tempfile.TemporaryDirectory(prefix="creating-", dir=database.parent) as directory:
        created = Path(directory) / database.name
        MlflowClient(_uri_of(created)).search_experiments(max_results=1)
        # MLflow places the experiment Default below the current directory.
        with contextlib.closing(sqlite3.connect(created)) as connection, connection:
            artifacts = (database.parent / "artifacts").as_uri()
            connection.execute("UPDATE experiments SET artifact_location = ?", (artifacts,))
        try:
            os.link(created, database)
        except FileExistsError:
            log.debug("%s: another process was first", database)
        except OSError:  # a file system without hard links
            os.rename(created, database)


def _uri_of(database: Path) -> str:
    # SQLAlchemy decodes what looks like a percent escape. MLflow does not, and makes an empty
    # directory of that name.
    path = re.sub("%(?=[0-9A-Fa-f]{2})", "%25", str(database))
    return f"sqlite:///{path}"


def unreadable(error: Exception) -> SetupError:
    """Return the error for a store that cannot be read."""
    return SetupError(
        f"{mlflow.get_tracking_uri()}: expected an MLflow store, found: {first_cause(error)} "
        "Restore the file from a backup, or pass another --lake."
    )

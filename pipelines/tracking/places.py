"""Absolute places in the database of a local lake's MLflow store, rewritten after the lake moved.

MLflow stores the absolute place of each experiment, run and model. A lake that was moved would not
find its models, and a copied one would read and write the files of its original.
"""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from pipelines.errors import ConflictError, SetupError
from pipelines.lake.links import inside
from pipelines.quoting import shown

log = logging.getLogger("reviewlake")

ARTIFACTS = ("mlflow", "artifacts")  # below the lake: the place of our experiments
# Table, column and condition. Datasets and params are records of the past, which stay.
COLUMNS = (
    ("experiments", "artifact_location", "true"),
    ("runs", "artifact_uri", "true"),
    ("logged_models", "artifact_location", "true"),
    ("model_versions", "source", "true"),
    ("model_versions", "storage_location", "true"),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)
# An experiment with runs of others only may be in a place of theirs that is called the same.
OURS = """
SELECT DISTINCT artifact_location FROM experiments AS e
WHERE NOT EXISTS (SELECT 1 FROM runs AS r WHERE r.experiment_id = e.experiment_id)
   OR EXISTS (
    SELECT 1 FROM runs AS r JOIN tags AS t ON t.run_uuid = r.run_uuid
    WHERE r.experiment_id = e.experiment_id AND t.key IN ('delta.version', 'reproduces')
   )
   OR EXISTS (
    SELECT 1 FROM runs AS r JOIN model_versions AS v ON v.run_id = r.run_uuid
    WHERE r.experiment_id = e.experiment_id
   )
"""
FILES_OF_STORE = (
    "mlflow",
    "mlflow/mlflow.db",
    "mlflow/mlflow.db-journal",
    "mlflow/mlflow.db-wal",
    "mlflow/artifacts",
    "mlflow/artifacts/models",
)


def require_inside(lake: Path) -> None:
    """Raise IntegrityError if a part of the lake's MLflow store is a link that leaves the lake.

    The lake itself may be reached through a link.
    """
    for name in FILES_OF_STORE:
        inside(lake, lake / name)


def rewrite_moved(database: Path, lake: Path, wait_s: float) -> None:
    """Rewrite the places in MLflow's database if the lake is not where they say; log one line.

    All are rewritten in one transaction, or none. Raises SetupError if the database cannot be
    written, and ConflictError if another process keeps it locked for `wait_s` seconds.
    """
    with _connected(database, wait_s) as connection:
        try:
            roots = _old_roots(connection, lake)
            if not roots:
                return
            n_places = _rewrite(connection, database, lake)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise ConflictError(
                    f"{database}: expected to rewrite the places of the lake, which has moved, but "
                    "another process keeps it locked. Run the job again once that one is done."
                ) from error
            raise
    if n_places:
        listing = ", ".join(shown(str(root)) for root in roots)
        log.info("%s: moved from %s: %d places in mlflow.db rewritten", lake, listing, n_places)


def path_of(place: str) -> PurePosixPath | None:
    """Return the path of a plain absolute path or a file: URI; None for any other place."""
    if place.startswith("/"):
        return PurePosixPath("/" + place.lstrip("/"))
    try:
        uri = urlsplit(place)
    except ValueError:
        return None
    is_local = uri.scheme == "file" and uri.netloc in ("", "localhost")
    if not is_local or uri.query or uri.fragment or not uri.path.startswith("/"):
        return None
    return PurePosixPath("/" + os.fsdecode(unquote_to_bytes(uri.path)).lstrip("/"))


def moved(place: str, roots: Sequence[PurePosixPath], lake: Path) -> str:
    """Return the place below the lake instead of below one of its old roots; others unchanged."""
    path = path_of(place)
    here = (PurePosixPath(lake), PurePosixPath(lake.resolve()))
    around = [root for root in (*here, *roots) if path and path.is_relative_to(root)]
    if path is None or not around:
        return place
    innermost = max(around, key=lambda root: len(root.parts))
    below = path.relative_to(innermost)
    if innermost in here or ".." in below.parts:
        return place
    new = lake / below
    return str(new) if place.startswith("/") else new.as_uri()


@contextlib.contextmanager
def _connected(database: Path, wait_s: float) -> Iterator[sqlite3.Connection]:
    # Without an isolation level, Python begins no transaction of its own.
    uri = f"{database.as_uri()}?mode=rw"
    opened = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None)
    with contextlib.closing(opened) as connection:
        yield connection


def _old_roots(connection: sqlite3.Connection, lake: Path) -> list[PurePosixPath]:
    """Return the directories, other than this one, where the database places the lake."""
    if not _has(connection, "experiments", "artifact_location"):
        return []
    roots: set[PurePosixPath] = set()
    for (place,) in connection.execute(OURS):
        path = path_of(place or "")
        if path is not None and path.parts[-2:] == ARTIFACTS:
            roots.add(path.parent.parent)
    elsewhere = {root for root in roots if root.name and not _is_same(root, lake)}
    return sorted(elsewhere)


def _is_same(root: PurePosixPath, lake: Path) -> bool:
    """Return whether the lake is there: by name, or through a link or a mount."""
    if root == PurePosixPath(lake):
        return True
    try:
        return os.path.samefile(root / "mlflow", lake / "mlflow")
    except (OSError, ValueError):
        return False


def _rewrite(connection: sqlite3.Connection, database: Path, lake: Path) -> int:
    """Rewrite all places in one transaction; return how many. SetupError if it cannot be written.

    Returns 0 if another process was first.
    """
    if database.stat().st_nlink > 1:
        raise SetupError(
            f"{database}: expected a file of this lake only, which has moved, but another place "
            "has a hard link to it. Replace it by a copy of its content."
        )
    try:
        connection.execute("BEGIN IMMEDIATE")
        n_places = _update(connection, _old_roots(connection, lake), lake)
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        raise SetupError(
            f"{database}: expected to rewrite the places of the lake, which has moved, but the "
            "database is read-only. Make it writable, or copy the lake to a place that is."
        ) from error
    return n_places


def _update(connection: sqlite3.Connection, roots: Sequence[PurePosixPath], lake: Path) -> int:
    def new_place(place: str | None) -> str | None:
        return None if place is None else moved(place, roots, lake)

    connection.create_function("moved", 1, new_place)
    n_places = 0
    for table, column, condition in COLUMNS:
        if _has(connection, table, column):
            n_places += connection.execute(
                f"UPDATE {table} SET {column} = moved({column}) "
                f"WHERE {condition} AND moved({column}) <> {column}"
            ).rowcount
    return n_places


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Return whether the database has this column: MLflow's tables differ between releases."""
    query = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?"
    return bool(connection.execute(query, (table, column)).fetchone()[0])

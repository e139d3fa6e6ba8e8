"""Every effect on Delta: creating, reading and writing the contracts' tables, and finding one's own commit."""

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import InputError, IntegrityError
from pipelines.lake import catalog
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_errors import worded
from pipelines.lake.frames import conform, content_hash
from pipelines.lake.locks import require_atomic, table_lock
from schemas import OPS_RUNS, TABLES, Table, View
from schemas.ddl import add_check, create_table, physical

log = logging.getLogger("reviewlake")

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
REFUSED_SETTING = "CONFIG_NOT_AVAILABLE"
RECENT_COMMITS = 50  # how far back one's own commit is looked for, with other writers in between


@dataclass(frozen=True)
class Commit:
    """What a write left: the table's version after it, and how many rows it added, changed and removed."""

    table: Table
    version: int
    n_added: int
    n_changed: int = 0
    n_removed: int = 0


class TableStore:
    """The tables of one lake or catalog, by their contracts."""

    def __init__(self, spark: SparkSession, config: LakeConfig) -> None:
        self.spark = spark
        self.config = config
        self._complete: set[str] = set()
        catalog.register_tables(spark, config)

    def sql(self, text: str) -> DataFrame:
        """The answer to SQL in the contracts' names, whatever the schemas are called in the catalog."""
        return catalog.sql(self.spark, self.config, text)

    def physical(self, text: str) -> str:
        """A table's name, or a whole statement, as the session's catalog knows it."""
        return physical(text, self.config.schema_names)

    def location(self, table: Table) -> str:
        """Directory or URI of a table; empty under a catalog, which places its tables itself."""
        return catalog.location(self.config, table)

    def exists(self, table: Table | View) -> bool:
        """Whether the table or view has been created."""
        return catalog.exists(self.spark, self.config, table.name)

    def create(self, table: Table) -> None:
        """Create the table with its comments, properties and checks; add a check that its contract gained since."""
        if table.name in self._complete:
            return
        with self.lock(table):
            is_new = not self.exists(table)
            if is_new:
                self.sql(create_table(table, self.location(table)))
            properties = self.sql(f"SHOW TBLPROPERTIES {table.name}").collect()
            present = {row["key"].removeprefix("delta.constraints.") for row in properties}
            for check in table.checks:
                if check.lower() not in present:
                    self.sql(add_check(table, check))
        self._complete.add(table.name)
        if is_new or self.config.catalog:
            catalog.create_views(self.spark, self.config)

    def lock(self, table: Table) -> AbstractContextManager[None]:
        """Keep other writers of a local table out; elsewhere the store itself lets one of two commits win."""
        if self.config.is_local:
            return table_lock(
                self.spark, self.config.lake_path / "locks" / table.name, self.config.lock_wait_s
            )
        if not self.config.catalog:
            require_atomic(self.spark, self.config.lake)
        return nullcontext()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """For a statement that may write to any table: all locks, in one order always, and its commits read back."""
        with ExitStack() as locks:
            for table in TABLES:
                locks.enter_context(self.lock(table))
            before = [(table, self.version(table)) for table in TABLES if self.exists(table)]
            with self._stamped() as commit_id:
                yield
            for table, version in before:
                if self.exists(table) and self.version(table) != version:
                    self._committed(table, commit_id, version)

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """The table's rows, at one version where it is given."""
        if not self.exists(table):
            raise InputError(
                f"{table.name}: expected a table in {self.config.where}, "
                f"found none. {table.comment.rsplit('. ', 1)[-1]}"
            )
        if version is None:
            return self.spark.table(self.physical(table.name))
        latest = self.version(table)
        if not 0 <= version <= latest:
            raise InputError(
                f"{table.name} has no version {version}: its log holds 0-{latest}. Pass one of these."
            )
        return self.sql(f"SELECT * FROM {table.name} VERSION AS OF {int(version)}")

    def version(self, table: Table) -> int:
        """The table's latest version now. A local log is read by its file names: DESCRIBE HISTORY takes a second."""
        if self.config.is_local:
            return int(catalog.commits_of(Path(self.location(table), "_delta_log"))[-1].stem)
        return int(
            self.sql(f"DESCRIBE HISTORY {table.name} LIMIT 1").select("version").first()["version"]
        )  # type: ignore[index]  # a table has at least its creation

    def latest(self, table: Table) -> int:
        """The latest version of a table that must be there; InputError says which job builds it."""
        self.read(table)
        return self.version(table)

    def data_tags(self, table: Table, version: int, content_hash: str) -> dict[str, str]:
        """What a run that read this version is tagged with: table, its id, version as text, content hash."""
        detail = self.sql(f"DESCRIBE DETAIL {table.name}").select("id").first()
        return {
            "delta.table": table.name,
            "delta.table_id": detail["id"] if detail else "",
            "delta.version": str(version),
            "content_hash": content_hash,
        }

    def counts(self, questions: Mapping[str, str]) -> dict[str, int]:
        """The one number that each SELECT gives, by name; asked in one statement."""
        listing = ", ".join(f"({question}) AS `{name}`" for name, question in questions.items())
        return {
            name: int(n) for name, n in self.sql(f"SELECT {listing}").collect()[0].asDict().items()
        }

    def append(self, table: Table, frame: DataFrame) -> Commit:
        """Add rows. Raises ContractError, or IntegrityError where a row breaks a check; then nothing is written."""
        rows = conform(frame, table)
        if rows.isEmpty():  # Delta makes no commit of nothing, so there would be none to find
            self.create(table)
            return Commit(table, self.version(table), 0)
        with self._commit(table) as (commit_id, before):
            rows.writeTo(self.physical(table.name)).append()
        return self._committed(table, commit_id, before)

    def merge(self, table: Table, frame: DataFrame) -> Commit:
        """Add the rows whose key is not there yet; the others stay as they are."""
        self.create(table)
        with self.lock(table):
            if frame.join(self.read(table), list(table.key), "left_anti").isEmpty():
                return Commit(table, self.version(table), 0)
            return self._merge(table, frame, "WHEN NOT MATCHED THEN INSERT *")

    def synchronise(self, table: Table, frame: DataFrame) -> Commit:
        """Make the table equal to `frame`: only rows that differ are written, so equal content adds no version."""
        if not self.exists(table):
            return self.append(table, frame)
        self.create(table)
        values = [name for name in table.column_names if name not in table.key]
        differs = " OR ".join(f"NOT (stored.{name} <=> given.{name})" for name in values) or "false"
        with self.lock(table):
            if content_hash(self.read(table)) == content_hash(conform(frame, table)):
                return Commit(table, self.version(table), 0)
            return self._merge(
                table,
                frame,
                f"WHEN MATCHED AND ({differs}) THEN UPDATE SET * "
                "WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE THEN DELETE",
            )

    def _merge(self, table: Table, frame: DataFrame, clauses: str) -> Commit:
        rows = conform(frame, table)
        with self._commit(table) as (commit_id, before):
            given = f"given_{uuid.uuid4().hex}"
            rows.createOrReplaceTempView(given)
            same_key = " AND ".join(f"stored.{name} = given.{name}" for name in table.key)
            try:
                self.sql(
                    f"MERGE INTO {table.name} AS stored USING {given} AS given ON {same_key} {clauses}"
                )
            finally:
                self.spark.catalog.dropTempView(given)
        return self._committed(table, commit_id, before)

    @contextmanager
    def _commit(self, table: Table) -> Iterator[tuple[str, int]]:
        """Stamp what is written inside with an id of its own, and word Delta's refusals.

        Yields the id, and, where the session takes none, the version before.
        """
        self.create(table)
        try:
            with self._stamped() as commit_id, self.lock(table):
                yield commit_id, -1 if commit_id else self.version(table)
        except (PySparkException, Py4JJavaError) as error:
            raise worded(error, table) from error

    @contextmanager
    def _stamped(self) -> Iterator[str]:
        """Yields the id that commits inside carry; an empty one on serverless compute, which refuses the setting."""
        commit_id = uuid.uuid4().hex
        try:
            self.spark.conf.set(USER_METADATA, commit_id)
        except PySparkException as error:
            if REFUSED_SETTING not in str(error):
                raise
            yield ""
            return
        try:
            yield commit_id
        finally:
            self.spark.conf.unset(USER_METADATA)

    def _committed(self, table: Table, commit_id: str, before: int) -> Commit:
        """One's own commit, found by its id: the newest entry of the history may be another writer's.

        Without an id, the first one after `before`: two writers of a table at once are then told apart by nothing.
        """
        history = self.sql(f"DESCRIBE HISTORY {table.name} LIMIT {RECENT_COMMITS}")
        is_mine = F.col("userMetadata") == commit_id if commit_id else F.col("version") > before
        mine = (
            history.where(is_mine).orderBy("version").select("version", "operationMetrics").first()
        )
        if mine is None:
            raise IntegrityError(
                f"{table.name}: expected commit {commit_id} in the last {RECENT_COMMITS} versions, found none. "
                "Another writer has overwritten it; run the stage again."
            )
        metrics = mine["operationMetrics"]
        n_added = int(metrics.get("numTargetRowsInserted", metrics.get("numOutputRows", 0)))
        others = (int(metrics.get(f"numTargetRows{what}", 0)) for what in ("Updated", "Deleted"))
        commit = Commit(table, mine["version"], n_added, *others)
        if table is not OPS_RUNS:
            log.info(
                "%s v%d: %s rows added, %s changed, %s removed",
                table.name, commit.version, f"{n_added:,}", f"{commit.n_changed:,}", f"{commit.n_removed:,}",
            )  # fmt: skip
        return commit

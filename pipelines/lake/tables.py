"""All writes to Delta: create, append, merge, synchronise; each finds its own commit."""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import InputError, IntegrityError
from pipelines.lake import catalog
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_errors import write_error
from pipelines.lake.delta_log import latest_version
from pipelines.lake.frames import conform, content_hash
from pipelines.lake.locks import require_atomic, table_lock
from pipelines.lake.session import get_session
from schemas import OPS_RUNS, TABLES, Table, View
from schemas.ddl import additions, create_table

log = logging.getLogger("reviewlake")

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
SETTING_REFUSED = "CONFIG_NOT_AVAILABLE"
RECENT_COMMITS = 50  # latest versions searched for our own commit


@dataclass(frozen=True)
class Commit:
    """The table's version after a write, and how many rows it added, changed and removed."""

    table: Table
    version: int
    n_added: int
    n_changed: int = 0
    n_removed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.table.name} v{self.version}: {self.n_added:,} rows added, "
            f"{self.n_changed:,} changed, {self.n_removed:,} removed"
        )


def versions_left(commits: Iterable[Commit]) -> dict[str, int]:
    """Return the version that each commit left, by table."""
    return {commit.table.name: commit.version for commit in commits}


def open_lake(app: str, config: LakeConfig) -> "TableStore":
    """Return the tables of a lake. Spark starts when first needed."""
    return TableStore(partial(get_session, app, config), config)


class TableStore:
    """The tables of one lake or catalog, by their contracts.

    The versions of a local table are read from the names of its log's files, so a job that finds
    its work done never starts Spark.
    """

    def __init__(
        self, session: SparkSession | Callable[[], SparkSession], config: LakeConfig
    ) -> None:
        self.config = config
        self._complete: set[str] = set()
        self._start_session = session if callable(session) else lambda: session
        self._spark: SparkSession | None = None
        if not callable(session):
            self._spark = self._started()

    @property
    def spark(self) -> SparkSession:
        """The session, started at the first use, with the lake's tables registered."""
        if self._spark is None:
            self._spark = self._started()
        return self._spark

    @property
    def is_started(self) -> bool:
        """Return whether the session has started."""
        return self._spark is not None

    def _started(self) -> SparkSession:
        spark = self._start_session()
        catalog.register_tables(spark, self.config)
        return spark

    def sql(self, text: str) -> DataFrame:
        """Run SQL that uses the contracts' table names."""
        return catalog.sql(self.spark, self.config, text)

    def exists(self, table: Table | View) -> bool:
        """Return whether the table or view has been created."""
        if isinstance(table, Table) and self.config.is_local and not self.is_started:
            return latest_version(self.config.log_directory(table)) is not None
        return catalog.exists(self.spark, self.config, table.name)

    def require(self, table: Table) -> None:
        """Raise InputError, naming the job that builds it, if the table does not exist."""
        if not self.exists(table):
            raise InputError(
                f"{table.name}: no such table in {self.config.where}. "
                f"{table.comment.rsplit('. ', 1)[-1]}"
            )

    def create(self, table: Table) -> None:
        """Create the table with comments, properties and checks; add what the contract has new."""
        if table.name in self._complete:
            return
        with self.lock(table):
            is_new = not self.exists(table)
            if is_new:
                self.sql(create_table(table, self.config.location(table)))
            properties = self.sql(f"SHOW TBLPROPERTIES {table.name}").collect()
            checks = {row["key"].removeprefix("delta.constraints.") for row in properties}
            columns = {name.lower() for name in self.read(table).columns}
            for statement in additions(table, columns, checks):
                self.sql(statement)
        self._complete.add(table.name)
        if is_new or self.config.catalog:
            catalog.create_views(self.spark, self.config)

    def lock(self, table: Table) -> AbstractContextManager[None]:
        """Lock out other writers of a local table; other stores must refuse one of two commits."""
        if self.config.is_local:
            file = self.config.lake_path / "locks" / table.name
            return table_lock(self.spark, file, self.config.lock_wait_s)
        if not self.config.catalog:
            require_atomic(self.spark, self.config.lake)
        return nullcontext()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock all tables, in a fixed order, for a statement that may write to any of them."""
        with ExitStack() as locks:
            for table in TABLES:
                locks.enter_context(self.lock(table))
            before = [(table, self.version(table)) for table in TABLES if self.exists(table)]
            with self._stamped() as commit_id:
                yield
            for table, version in before:
                if self.exists(table) and self.version(table) != version:
                    self._own_commit(table, commit_id, version)

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """Return the table's rows, of the latest version or of the given one."""
        self.require(table)
        if version is None:
            return self.spark.table(self.config.physical(table.name))
        latest = self.version(table)
        if not 0 <= version <= latest:
            raise InputError(
                f"{table.name} has no version {version}: its log holds 0-{latest}. "
                "Pass one of these."
            )
        return self.sql(f"SELECT * FROM {table.name} VERSION AS OF {int(version)}")

    def version(self, table: Table) -> int:
        """Return the latest version. DESCRIBE HISTORY takes a second; file names take no time."""
        if self.config.is_local:
            version = latest_version(self.config.log_directory(table))
            if version is None:
                raise IntegrityError(f"{table.name}: its log has no commit. Run jobs/doctor.py.")
            return version
        history = self.sql(f"DESCRIBE HISTORY {table.name} LIMIT 1").select("version")
        return int(history.collect()[0]["version"])

    def latest(self, table: Table) -> int:
        """Return the latest version of a table. Raises InputError if it does not exist."""
        self.require(table)
        return self.version(table)

    def data_tags(self, table: Table, version: int, content_hash: str) -> dict[str, str]:
        """Return the tags of a run that read this version: table, id, version, content hash."""
        detail = self.sql(f"DESCRIBE DETAIL {table.name}").select("id").first()
        return {
            "delta.table": table.name,
            "delta.table_id": detail["id"] if detail else "",
            "delta.version": str(version),
            "content_hash": content_hash,
        }

    def counts(self, queries: Mapping[str, str]) -> dict[str, int]:
        """Return the single number of each SELECT, by name; all run as one statement."""
        listing = ", ".join(f"({query}) AS `{name}`" for name, query in queries.items())
        row = self.sql(f"SELECT {listing}").collect()[0]
        return {name: int(n) for name, n in row.asDict().items()}

    def append(self, table: Table, frame: DataFrame) -> Commit:
        """Add rows. Raises ContractError, or IntegrityError for a row that breaks a check."""
        rows = conform(frame, table)
        if rows.isEmpty():  # no rows: Delta makes no commit, so none could be found
            self.create(table)
            return Commit(table, self.version(table), 0)
        with self._commit(table) as (commit_id, version_before):
            rows.writeTo(self.config.physical(table.name)).append()
        return self._own_commit(table, commit_id, version_before)

    def merge(self, table: Table, frame: DataFrame) -> Commit:
        """Add the rows whose key is new; rows with a known key are left as they are."""
        self.create(table)
        with self.lock(table):
            if frame.join(self.read(table), list(table.key), "left_anti").isEmpty():
                return Commit(table, self.version(table), 0)
            return self._merge(table, frame, "WHEN NOT MATCHED THEN INSERT *")

    def synchronise(self, table: Table, frame: DataFrame) -> Commit:
        """Make the table equal to `frame`. Only rows that differ are written."""
        if not self.exists(table):
            return self.append(table, frame)
        self.create(table)
        values = [name for name in table.column_names if name not in table.key]
        differs = " OR ".join(f"NOT (stored.{name} <=> given.{name})" for name in values)
        clauses = (
            f"WHEN MATCHED AND ({differs or 'false'}) THEN UPDATE SET * "
            "WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE THEN DELETE"
        )
        with self.lock(table):
            if content_hash(self.read(table)) == content_hash(conform(frame, table)):
                return Commit(table, self.version(table), 0)
            return self._merge(table, frame, clauses)

    def _merge(self, table: Table, frame: DataFrame, clauses: str) -> Commit:
        rows = conform(frame, table)
        same_key = " AND ".join(f"stored.{name} = given.{name}" for name in table.key)
        with self._commit(table) as (commit_id, version_before):
            view = f"given_{uuid.uuid4().hex}"
            rows.createOrReplaceTempView(view)
            try:
                self.sql(
                    f"MERGE INTO {table.name} AS stored USING {view} AS given "
                    f"ON {same_key} {clauses}"
                )
            finally:
                self.spark.catalog.dropTempView(view)
        return self._own_commit(table, commit_id, version_before)

    @contextmanager
    def _commit(self, table: Table) -> Iterator[tuple[str, int]]:
        """Stamp the writes of this block with an id, under the table's lock.

        Yields (id, -1); if the session refuses the setting, ("", version before the write).
        """
        self.create(table)
        try:
            with self._stamped() as commit_id, self.lock(table):
                yield commit_id, -1 if commit_id else self.version(table)
        except (PySparkException, Py4JJavaError) as error:
            raise write_error(error, table) from error

    @contextmanager
    def _stamped(self) -> Iterator[str]:
        """Yield the id that commits inside carry; empty if the session refuses the setting."""
        commit_id = uuid.uuid4().hex
        try:
            self.spark.conf.set(USER_METADATA, commit_id)
        except PySparkException as error:
            if SETTING_REFUSED not in str(error):
                raise
            yield ""
            return
        try:
            yield commit_id
        finally:
            self.spark.conf.unset(USER_METADATA)

    def _own_commit(self, table: Table, commit_id: str, version_before: int) -> Commit:
        """Return the commit that carries the id: the newest one may be another writer's.

        Without an id, return the first one after `version_before`: two concurrent writers of one
        table cannot be told apart then.
        """
        history = self.sql(f"DESCRIBE HISTORY {table.name} LIMIT {RECENT_COMMITS}")
        is_own = F.col("version") > version_before
        if commit_id:
            is_own = F.col("userMetadata") == commit_id
        own_commits = history.where(is_own).orderBy("version")
        row = own_commits.select("version", "operationMetrics").first()
        if row is None:
            raise IntegrityError(
                f"{table.name}: commit {commit_id} is not among the last {RECENT_COMMITS} "
                "versions. Another writer has overwritten it; run the stage again."
            )
        metrics = row["operationMetrics"]
        commit = Commit(
            table,
            row["version"],
            n_added=int(metrics.get("numTargetRowsInserted", metrics.get("numOutputRows", 0))),
            n_changed=int(metrics.get("numTargetRowsUpdated", 0)),
            n_removed=int(metrics.get("numTargetRowsDeleted", 0)),
        )
        if table is not OPS_RUNS:
            log.info("%s", commit)
        return commit

"""All writes to Delta: create, append, merge, synchronise; each finds its own commit."""

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import InputError, IntegrityError
from pipelines.lake import catalog, commits, merge
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_errors import write_error
from pipelines.lake.delta_log import commit_of, latest_version, rows_of
from pipelines.lake.frames import conform, key_counts, totals
from pipelines.lake.locks import require_atomic, table_lock
from pipelines.lake.session import get_session
from schemas import OPS_RUNS, TABLES, Table, View
from schemas.ddl import create_table

log = logging.getLogger("reviewlake")

USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
SETTING_REFUSED = "CONFIG_NOT_AVAILABLE"


def open_lake(
    app: str, config: LakeConfig, tables: Collection[Table] | None = None
) -> "TableStore":
    """Return the tables of a lake. Spark starts when first needed.

    tables  those that the job reads and writes; by default all, with the views
    """
    return TableStore(partial(get_session, app, config), config, tables)


class TableStore:
    """The tables of one lake or catalog, by their contracts.

    The versions of a local table are read from the names of its log's files, so a job that finds
    its work done never starts Spark.
    """

    def __init__(
        self,
        session: SparkSession | Callable[[], SparkSession],
        config: LakeConfig,
        tables: Collection[Table] | None = None,
    ) -> None:
        self.config = config
        self.changes_since: dict[str, int] = {}  # by table: a version whose changes could be read
        self._tables = tables
        self._complete: set[str] = set()
        self._registered: set[str] = set()
        self._start_session = session if callable(session) else lambda: session
        self._spark: SparkSession | None = None
        if not callable(session):
            self._spark = self._started()

    @property
    def spark(self) -> SparkSession:
        """The session, started at the first use, with the lake's tables registered."""
        self._spark = self._spark or self._started()
        return self._spark

    @property
    def is_started(self) -> bool:
        """Return whether the session has started."""
        return self._spark is not None

    def _started(self) -> SparkSession:
        spark = self._start_session()
        self._registered = catalog.register_tables(spark, self.config, self._tables)
        return spark

    def sql(self, text: str) -> DataFrame:
        """Run SQL that uses the contracts' table names."""
        return catalog.sql(self.spark, self.config, text)

    def exists(self, table: Table | View) -> bool:
        """Return whether the table or view has been created."""
        if isinstance(table, View) or not self.config.is_local:
            return catalog.exists(self.spark, self.config, table.name)
        if latest_version(self.config.log_directory(table)) is None:
            return False
        if self.is_started and table.name not in self._registered:
            catalog.register(self.spark, self.config, table)
            self._registered.add(table.name)
        return True

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
            create = [create_table(table, self.config.location(table))]
            missing = create if is_new else catalog.additions(self.spark, self.config, table)
            for statement in missing:
                self.sql(statement)
        self._registered.add(table.name)
        self._complete.add(table.name)
        if self.config.catalog or (is_new and self._tables is None):
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

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """Return all rows of a small table, none if it does not exist; if local, without Spark."""
        if not self.exists(table):
            return []
        if self.config.is_local:
            return rows_of(table, self.config.log_directory(table))
        return [row.asDict(recursive=True) for row in self.read(table).collect()]

    def version(self, table: Table) -> int:
        """Return the latest version. DESCRIBE HISTORY takes a second; file names take no time."""
        if self.config.is_local:
            version = latest_version(self.config.log_directory(table))
            if version is None:
                raise IntegrityError(f"{table.name}: its log has no commit. Run jobs/doctor.py.")
            return version
        history = self.sql(f"DESCRIBE HISTORY {table.name} LIMIT 1")
        return int(history.select("version").collect()[0]["version"])

    def latest(self, table: Table) -> int:
        """Return the latest version of a table. Raises InputError if it does not exist."""
        self.require(table)
        return self.version(table)

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

    def merge(
        self, table: Table, frame: DataFrame, only: tuple[str, Collection[str]] | None = None
    ) -> Commit:
        """Add the rows whose key is new; rows with a known key are left as they are.

        only  a column and all of its values in `frame`: other files of the table are not read
        """
        self.create(table)
        with self.lock(table):
            stored = self.read(table)
            if only:
                stored = stored.where(F.col(only[0]).isin(*only[1]))
            n_given, n_stored = key_counts(frame, stored, table.key)
            if n_given == n_stored:
                return Commit(table, self.version(table), 0)
            if n_stored == 0 and self.config.is_local:  # cheaper; see _synchronise_keys
                return self.append(table, frame)
            return self._merge(table, conform(frame, table), merge.insert_new(only))

    def synchronise(
        self, table: Table, frame: DataFrame, within: DataFrame | None = None
    ) -> Commit:
        """Make the table equal to `frame`. Only rows that differ are written.

        within  distinct keys, those of `frame` among them: no other row is compared or changed
        """
        if not self.exists(table):
            return self.append(table, frame)
        self.create(table)
        with self.lock(table):
            if within is not None:
                return self._synchronise_keys(table, frame, within)
            rows = conform(frame, table)
            if totals(self.read(table)) == totals(rows):
                return Commit(table, self.version(table), 0)
            return self._merge(table, rows, merge.equal_to_source(table))

    def _synchronise_keys(self, table: Table, frame: DataFrame, within: DataFrame) -> Commit:
        """Synchronise the rows of these keys; without a commit if none differs."""
        key = list(table.key)
        rows = conform(frame, table)
        stored = self.read(table).join(within, key, "left_semi").drop(*table.set_by_key)
        before = totals(stored)
        # Two appends never conflict, so elsewhere another job might add the same rows.
        if before.n_rows == 0 and self.config.is_local:
            return self.append(table, rows)
        if before == totals(rows.drop(*table.set_by_key)):
            return Commit(table, self.version(table), 0)
        given = rows.withColumn("is_given", F.lit(True))
        source = within.join(given, key, "left").na.fill({"is_given": False})
        return self._merge(table, source, merge.equal_where_given(table))

    def _merge(self, table: Table, frame: DataFrame, clauses: str) -> Commit:
        with self._commit(table) as (commit_id, version_before):
            view = f"given_{uuid.uuid4().hex}"
            frame.createOrReplaceTempView(view)
            try:
                self.sql(merge.statement(table, view, clauses))
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
        if self.config.is_local and commit_id:
            own = commit_of(self.config.log_directory(table), commit_id, commits.RECENT)
        else:
            history = self.sql(f"DESCRIBE HISTORY {table.name} LIMIT {commits.RECENT}")
            own = commits.own_commit(history, commit_id, version_before)
        commit = commits.required(table, commit_id, own)
        if table is not OPS_RUNS:
            log.info("%s", commit)
        return commit

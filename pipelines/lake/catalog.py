"""Where the tables and views of the contracts stand: their names in the session's catalog, and their directories."""

from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.config import LakeConfig
from schemas import TABLES, VIEWS, Table
from schemas.ddl import create_view, physical

NO_TABLE = ("PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND")


def sql(spark: SparkSession, config: LakeConfig, text: str) -> DataFrame:
    """The answer to SQL in the contracts' names."""
    return spark.sql(physical(text, config.schema_names))


def exists(spark: SparkSession, config: LakeConfig, name: str) -> bool:
    """Whether the session knows a table or view of that contract's name."""
    return spark.catalog.tableExists(physical(name, config.schema_names))


def location(config: LakeConfig, table: Table) -> str:
    """Directory or URI of a table; empty under a catalog, which places its tables itself."""
    if config.catalog:
        return ""
    return "/".join(
        [config.where.rstrip("/"), *physical(table.name, config.schema_names).split(".")]
    )


def register_tables(spark: SparkSession, config: LakeConfig) -> None:
    """Let the session know the schemas, the tables that there are already, and their views.

    A catalog knows its tables and views; its views are made anew by those who write their tables.
    """
    if config.catalog:
        spark.sql(f"SET CATALOG {config.catalog}")
    for schema in config.schema_names.values():
        if not spark.catalog.databaseExists(
            schema
        ):  # who may only read it may not ask for its creation either
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {schema}")
    if not config.catalog:
        _register(spark, config)
        create_views(spark, config)


def create_views(spark: SparkSession, config: LakeConfig) -> None:
    """The views whose tables are all there."""
    for view in VIEWS:
        if all(exists(spark, config, table.name) for table in view.reads):
            sql(spark, config, create_view(view))
        elif not config.catalog:
            sql(spark, config, f"DROP VIEW IF EXISTS {view.name}")


def _register(spark: SparkSession, config: LakeConfig) -> None:
    """Tables are directories; a session without a catalog that lasts knows none of them at its start."""
    for table in TABLES:
        sql(
            spark, config, f"DROP TABLE IF EXISTS {table.name}"
        )  # another lake's; external, so no file goes
        path = location(config, table)
        if _is_table(spark, config, path):  # else Delta would commit an empty one there
            spark.catalog.createTable(
                physical(table.name, config.schema_names), path=path, source="delta"
            )


def commits_of(log: Path) -> list[Path]:
    """The commits in a local table's log, in order: files named by their version. Empty where there is no log."""
    return sorted(file for file in log.glob("*.json") if file.stem.isdigit())


def _is_table(spark: SparkSession, config: LakeConfig, path: str) -> bool:
    """Whether a table's first commit is there. A local log is looked for by its file names: Delta takes longer."""
    if config.is_local:
        return bool(commits_of(Path(path, "_delta_log")))
    try:
        spark.read.format("delta").load(path).schema  # noqa: B018  # Spark looks when it is asked for
    except AnalysisException as error:
        if error.getCondition() not in NO_TABLE:
            raise
        return False
    return True

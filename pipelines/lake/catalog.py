"""The tables and views of the contracts in a session's catalog."""

from collections.abc import Collection

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_log import latest_version
from schemas import TABLES, VIEWS, Table, ddl
from schemas.ddl import create_view

NO_TABLE = ("PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND")


def sql(spark: SparkSession, config: LakeConfig, text: str) -> DataFrame:
    """Run SQL that uses the contracts' table names."""
    return spark.sql(config.physical(text))


def exists(spark: SparkSession, config: LakeConfig, name: str) -> bool:
    """Return whether the session knows the table or view of this contract name."""
    return spark.catalog.tableExists(config.physical(name))


def additions(spark: SparkSession, config: LakeConfig, table: Table) -> list[str]:
    """Return the statements that add to a table what its contract has, and it lacks."""
    rows = sql(spark, config, f"SHOW TBLPROPERTIES {table.name}").collect()
    properties = {row["key"]: row["value"] for row in rows}
    columns = {name.lower() for name in spark.table(config.physical(table.name)).columns}
    return ddl.additions(table, columns, properties)


def register_tables(
    spark: SparkSession, config: LakeConfig, tables: Collection[Table] | None = None
) -> set[str]:
    """Register the schemas, the existing tables and their views in the session.

    tables   only these, and no views; by default all
    returns  the names of the tables that exist and are no catalog's
    Unity Catalog already knows its tables and views; jobs that write tables renew its views.
    """
    if config.catalog:
        spark.sql(f"SET CATALOG {config.catalog}")
    for schema in config.schema_names.values():
        # A user with read access only may not run CREATE, not even with IF NOT EXISTS.
        if not spark.catalog.databaseExists(schema):
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {schema}")
    if config.catalog:
        return set()
    chosen = TABLES if tables is None else tables
    registered = {table.name for table in chosen if register(spark, config, table)}
    if tables is None:
        create_views(spark, config)
    return registered


def create_views(spark: SparkSession, config: LakeConfig) -> None:
    """Create the views whose tables all exist."""
    for view in VIEWS:
        if all(exists(spark, config, table.name) for table in view.reads):
            sql(spark, config, create_view(view))
        elif not config.catalog:
            sql(spark, config, f"DROP VIEW IF EXISTS {view.name}")


def register(spark: SparkSession, config: LakeConfig, table: Table) -> bool:
    """Register a table by its directory, if it exists: a local catalog ends with the session."""
    # The entry may be another lake's table. Tables are external, so that no file is deleted.
    sql(spark, config, f"DROP TABLE IF EXISTS {table.name}")
    if not _is_table(spark, config, table):  # on an empty path Delta would commit an empty table
        return False
    path = config.location(table)
    spark.catalog.createTable(config.physical(table.name), path=path, source="delta")
    return True


def _is_table(spark: SparkSession, config: LakeConfig, table: Table) -> bool:
    """Return whether the table has a commit. File names are faster than Delta."""
    if config.is_local:
        return latest_version(config.log_directory(table)) is not None
    try:
        # Spark looks at the path when it is asked for the schema.
        _ = spark.read.format("delta").load(config.location(table)).schema
    except AnalysisException as error:
        if error.getCondition() not in NO_TABLE:
            raise
        return False
    return True

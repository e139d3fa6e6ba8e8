"""Where the tables and views of the contracts stand: their names in the session's catalog, and their directories."""

from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pipelines.session import LakeConfig
from schemas import TABLES, VIEWS, Table
from schemas.ddl import create_view, physical


def sql(spark: SparkSession, config: LakeConfig, text: str) -> DataFrame:
    """The answer to SQL in the contracts' names."""
    return spark.sql(physical(text, config.schema_names))


def exists(spark: SparkSession, config: LakeConfig, name: str) -> bool:
    """Whether the session knows a table or view of that contract's name."""
    return spark.catalog.tableExists(physical(name, config.schema_names))


def location(config: LakeConfig, table: Table) -> str:
    """Directory of a local table; empty under a catalog, which places its tables itself."""
    name = physical(table.name, config.schema_names)
    return str(config.lake_path.joinpath(*name.split("."))) if config.is_local else ""


def open_lake(spark: SparkSession, config: LakeConfig) -> None:
    """Let the session know the schemas, the tables that there are already, and their views.

    A catalog knows its tables and views; its views are made anew by those who write their tables.
    """
    if config.catalog:
        spark.sql(f"SET CATALOG {config.catalog}")
    for schema in config.schema_names.values():
        if not spark.catalog.databaseExists(schema):  # who may only read it may not ask for its creation either
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {schema}")
    if config.is_local:
        _register(spark, config)
        create_views(spark, config)


def create_views(spark: SparkSession, config: LakeConfig) -> None:
    """The views whose tables are all there."""
    for view in VIEWS:
        if all(exists(spark, config, table.name) for table in view.reads):
            sql(spark, config, create_view(view))
        elif config.is_local:
            sql(spark, config, f"DROP VIEW IF EXISTS {view.name}")


def _register(spark: SparkSession, config: LakeConfig) -> None:
    """Tables are directories; a local session knows none of them at its start."""
    for table in TABLES:
        sql(spark, config, f"DROP TABLE IF EXISTS {table.name}")  # another lake's; external, so no file goes
        path = location(config, table)
        if any(Path(path, "_delta_log").glob("*.json")):  # none: a creation was killed before its first commit
            spark.catalog.createTable(physical(table.name, config.schema_names), path=path, source="delta")

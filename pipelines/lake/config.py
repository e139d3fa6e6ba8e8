"""Where a lake's tables, models and landing files are: the flags that every job takes."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import check_values, flag
from pipelines.flag_rules import CATALOG_NAME, MAX_SECONDS, PATH, Rule, between
from pipelines.lake.links import inside
from pipelines.quoting import quoted
from schemas import Table
from schemas.ddl import SCHEMAS, physical

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")
DELTA_LOG = "_delta_log"
# Spark's own schemas, and words with which a statement of ours does not parse, found by trying
# Spark's keywords.
RESERVED = {
    *("global_temp", "information_schema", "spark_catalog", "add", "alter", "comment"),
    *("constraint", "create", "drop", "false", "if", "location", "not", "null", "or", "replace"),
    *("system_time", "system_version", "tblproperties", "timestamp", "true", "version", "where"),
}


def _are_schemas(text: str) -> bool:
    names = text.lower().split(",")
    is_each_valid = all(CATALOG_NAME.accepts(name) and name not in RESERVED for name in names)
    return is_each_valid and len(set(names)) == len(names) == len(SCHEMAS)


FOUR_SCHEMAS = Rule(
    "four different names of ASCII letters, digits and _, none of them a number or reserved, for "
    f"example {','.join(SCHEMAS)}",
    _are_schemas,
)


@dataclass(frozen=True)
class LakeConfig:
    """The place of tables and models: a local directory, an object store, or a Unity Catalog."""

    lake: str = flag(
        "directory for tables, models and downloads; at a URI (scheme://…) only tables are stored",
        "lake",
        must_be=PATH,
    )
    catalog: str = flag(
        "Unity Catalog to use instead of a local lake (Databricks)", "", must_be=CATALOG_NAME
    )
    landing: str = flag(
        "directory for downloads and staging; default <lake>/landing; required with URI or catalog",
        "",
        must_be=PATH,
    )
    schemas: str = flag(
        "names of the four schemas bronze, silver, gold and ops, in this order",
        ",".join(SCHEMAS),
        must_be=FOUR_SCHEMAS,
    )
    jars: str = flag("directory with Delta's two jars, for offline use", "", must_be=PATH)
    lock_wait_s: float = flag(
        "seconds to wait for another local writer of the same table",
        60.0,
        must_be=between(0, MAX_SECONDS),
    )
    rerun: bool = flag("run even if ops.runs says that this run is already done", False)

    def __post_init__(self) -> None:
        check_values(self)
        pattern = re.search(r"[*?\[\]{}\\]", f"{self.where}{self._landing}")
        if pattern and not self.catalog:
            raise ValueError(
                f"--lake and --landing must not contain {pattern[0]}: Spark reads it as a pattern"
            )
        if not self.is_local and (not self.landing or SCHEME.match(self.landing)):
            place = "--catalog" if self.catalog else f"--lake {self.lake}"
            raise ValueError(
                f"{place} needs --landing: a directory, without scheme, that the driver and all "
                f"workers can read, got {quoted(self.landing)}"
            )

    @property
    def is_local(self) -> bool:
        """Return whether the tables are directories of this machine."""
        scheme = SCHEME.match(self.lake)
        return self.catalog == "" and (scheme is None or scheme[1].lower() == "file")

    @property
    def lake_path(self) -> Path:
        """The absolute directory of a local lake."""
        return Path(re.sub("^file:/+", "/", self.lake, flags=re.IGNORECASE)).absolute()

    @property
    def landing_path(self) -> Path:
        """The absolute directory of downloads and staged files."""
        if self.landing:
            return self._landing
        return inside(self.lake_path, self._landing, ", or pass --landing")

    @property
    def _landing(self) -> Path:
        return Path(self.landing).absolute() if self.landing else self.lake_path / "landing"

    @property
    def where(self) -> str:
        """The place of the tables, for messages."""
        return self.catalog or (str(self.lake_path) if self.is_local else self.lake)

    @property
    def schema_names(self) -> dict[str, str]:
        """Catalog schema by contract schema: a bundle in development mode renames them."""
        return dict(zip(SCHEMAS, self.schemas.split(","), strict=True))

    def physical(self, text: str) -> str:
        """Return a table name or SQL text with the catalog's names filled in."""
        return physical(text, self.schema_names)

    def location(self, table: Table) -> str:
        """Return a table's directory or URI; empty in a catalog, which places its tables itself."""
        if self.catalog:
            return ""
        schema, name = self.physical(table.name).split(".")
        location = f"{self.where.rstrip('/')}/{schema}/{name}"
        if self.is_local:  # Delta overwrites the last of these, through a link if it is one
            inside(self.lake_path, Path(location, DELTA_LOG, "_last_checkpoint"))
        return location

    def log_directory(self, table: Table) -> Path:
        """Return the directory of a local table's Delta log."""
        return Path(self.location(table), DELTA_LOG)

    def readable(self, landed: Path) -> str:
        """Return a landed path as Spark needs it if its default file system is not local."""
        return str(landed) if self.catalog or self.is_local else f"file:{landed}"

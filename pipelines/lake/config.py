"""Where a lake's tables, models and landing files are: the flags that every job takes."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import flag
from schemas import Table
from schemas.ddl import SCHEMAS, physical

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")
NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class LakeConfig:
    """The place of tables and models: a local directory, an object store, or a Unity Catalog."""

    lake: str = flag(
        "directory for tables, models and downloads; at a URI (scheme://…) only tables are stored",
        "lake",
    )
    catalog: str = flag("Unity Catalog to use instead of a local lake (Databricks)", "")
    landing: str = flag(
        "directory for downloads and staging; default <lake>/landing; required with URI or catalog",
        "",
    )
    schemas: str = flag(
        "names of the four schemas bronze, silver, gold and ops, in this order", ",".join(SCHEMAS)
    )
    jars: str = flag("directory with Delta's two jars, for offline use", "")
    lock_wait_s: float = flag("seconds to wait for another local writer of the same table", 60.0)
    rerun: bool = flag("run even if ops.runs says that this run is already done", False)

    def __post_init__(self) -> None:
        if self.catalog and not NAME.fullmatch(self.catalog):
            raise ValueError(f"--catalog must be letters, digits and _, got {self.catalog!r}")
        pattern = re.search(r"[*?\[\]{}\\]", f"{self.where}{self.landing_path}")
        if pattern and not self.catalog:
            raise ValueError(
                f"--lake and --landing must not contain {pattern[0]}: Spark reads it as a pattern"
            )
        if not self.is_local and (not self.landing or SCHEME.match(self.landing)):
            place = "--catalog" if self.catalog else f"--lake {self.lake}"
            raise ValueError(
                f"{place} needs --landing: a directory, without scheme, that the driver and all "
                f"workers can read, got {self.landing!r}"
            )
        names = self.schemas.split(",")
        distinct = {name.lower() for name in names if NAME.fullmatch(name)}
        if not len(distinct) == len(names) == len(SCHEMAS):
            raise ValueError(
                "--schemas must be four different names of letters, digits and _, as "
                f"{','.join(SCHEMAS)}, got {self.schemas!r}"
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
        return f"{self.where.rstrip('/')}/{schema}/{name}"

    def log_directory(self, table: Table) -> Path:
        """Return the directory of a local table's Delta log."""
        return Path(self.location(table), "_delta_log")

    def readable(self, landed: Path) -> str:
        """Return a landed path as Spark needs it if its default file system is not local."""
        return str(landed) if self.catalog or self.is_local else f"file:{landed}"

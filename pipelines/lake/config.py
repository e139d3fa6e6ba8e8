"""Where a lake's tables, models and landing files are: flags that every job takes."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.cli import flag
from schemas.ddl import SCHEMAS

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


@dataclass(frozen=True)
class LakeConfig:
    """Where the tables and the models are: a local directory, an object store, or a Unity Catalog."""

    lake: str = flag(
        "directory of tables, models and landing files; as scheme://… of the tables alone", "lake"
    )
    catalog: str = flag("Unity Catalog to use instead of a local lake (Databricks)", "")
    landing: str = flag("directory for downloads and staging; default <lake>/landing", "")
    schemas: str = flag(
        "names that the schemas bronze, silver, gold and ops go by, in this order",
        ",".join(SCHEMAS),
    )
    jars: str = flag("directory with Delta's two jars, where the network is not to be used", "")
    lock_wait_s: float = flag("seconds to wait for another local writer of a table", 60.0)
    rerun: bool = flag("run even where the ledger says that it is done", False)

    def __post_init__(self) -> None:
        if self.catalog and not re.fullmatch(r"\w+", self.catalog):
            raise ValueError(f"--catalog must be letters, digits and _, got {self.catalog!r}")
        if not self.catalog and (
            found := re.search(r"[*?\[\]{}\\]", f"{self.where}{self.landing_path}")
        ):
            raise ValueError(
                f"--lake and --landing must be free of {found[0]}, which Spark reads as a pattern"
            )
        if not self.is_local and (not self.landing or SCHEME.match(self.landing)):
            which = "--catalog" if self.catalog else f"--lake {self.lake}"
            expected = "a directory, without scheme, that the driver and all workers can read"
            raise ValueError(f"{which} needs --landing: {expected}, got {self.landing!r}")
        distinct = {name.lower() for name in self.schemas.split(",") if re.fullmatch(r"\w+", name)}
        if len(distinct) != len(SCHEMAS) or self.schemas.count(",") >= len(SCHEMAS):
            expected = f"four different names of letters, digits and _, as {','.join(SCHEMAS)}"
            raise ValueError(f"--schemas must be {expected}, got {self.schemas!r}")

    @property
    def schema_names(self) -> dict[str, str]:
        """The schema in the catalog by that of the contracts: a bundle's development mode renames them."""
        return dict(zip(SCHEMAS, self.schemas.split(","), strict=True))

    @property
    def is_local(self) -> bool:
        """Whether the tables are directories of this machine."""
        scheme = SCHEME.match(self.lake)
        return self.catalog == "" and (scheme is None or scheme[1].lower() == "file")

    @property
    def lake_path(self) -> Path:
        """The directory of a local lake, absolute."""
        return Path(re.sub("^file:/+", "/", self.lake, flags=re.IGNORECASE)).absolute()

    @property
    def where(self) -> str:
        """The place of the tables, as a user knows it."""
        return self.catalog or (str(self.lake_path) if self.is_local else self.lake)

    def readable(self, landed: Path) -> str:
        """A landed file's or directory's name for Spark, whose own file system may be another one."""
        return str(landed) if self.catalog or self.is_local else f"file:{landed}"

    @property
    def landing_path(self) -> Path:
        """Where downloads and staged files are kept."""
        return Path(self.landing).absolute() if self.landing else self.lake_path / "landing"

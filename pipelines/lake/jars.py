"""Delta's two jars: which ones, and where a session gets them from."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyspark

from pipelines.errors import InputError, SetupError

log = logging.getLogger("reviewlake")


class Delta(NamedTuple):
    """The build of Delta for one version of Spark."""

    artifact: str
    version: str

    @property
    def package(self) -> str:
        """Its coordinate on Maven Central."""
        return f"io.delta:{self.artifact}:{self.version}"

    @property
    def jars(self) -> tuple[str, str]:
        """The file names of its two jars."""
        return f"{self.artifact}-{self.version}.jar", f"delta-storage-{self.version}.jar"


DELTA_FOR_SPARK = {
    "4.0": Delta("delta-spark_2.13", "4.0.1"),
    "4.2": Delta("delta-spark_4.2_2.13", "4.4.0"),
}


def delta_for(spark_version: str = pyspark.__version__) -> Delta:
    """Return the Delta for a version of Spark, by default the installed one. Raises SetupError.

    Only a session that we start ourselves needs it: Databricks and Spark servers have their own.
    """
    release = ".".join(spark_version.split(".")[:2])
    if release not in DELTA_FOR_SPARK:
        known = " or ".join(DELTA_FOR_SPARK)
        raise SetupError(
            f"pyspark: expected {known}, found {spark_version}. Install pyspark==4.2.0."
        )
    return DELTA_FOR_SPARK[release]


# Spark ships these, or nothing calls them. Without this list Ivy fetches 33 jars (87 MB), not two.
EXCLUDED_MODULES = (
    "com.fasterxml.jackson.core:jackson-annotations",
    "com.fasterxml.jackson.core:jackson-core",
    "com.fasterxml.jackson.core:jackson-databind",
    "com.fasterxml.jackson.datatype:jackson-datatype-jdk8",
    "com.fasterxml.jackson.datatype:jackson-datatype-jsr310",
    "com.google.code.findbugs:jsr305",
    "commons-pool:commons-pool",
    "io.airlift:aircompressor",
    "io.delta:delta-kernel-api",
    "io.delta:delta-kernel-defaults",
    "io.delta:delta-kernel-unitycatalog",
    "io.unitycatalog:unitycatalog-client",
    "io.unitycatalog:unitycatalog-hadoop",
    "javax.annotation:javax.annotation-api",
    "org.antlr:antlr4-runtime",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.logging.log4j:log4j-api",
    "org.apache.logging.log4j:log4j-core",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.apache.parquet:parquet-hadoop",
    "org.locationtech.jts:jts-core",
    "org.roaringbitmap:RoaringBitmap",
    "org.slf4j:slf4j-api",
)


def jar_settings(jars: str) -> dict[str, str]:
    """Return the settings for Delta's jars: from `jars`, from Ivy's cache, or through Ivy."""
    delta = delta_for()
    if jars:
        return {"spark.jars": _joined(_jars_in(Path(jars), delta))}
    cache = Path.home() / ".ivy2.5.2" / "jars"
    cached = [cache / f"io.delta_{name}" for name in delta.jars]
    if all(path.is_file() for path in cached):
        return {"spark.jars": _joined(cached)}
    log.info("Delta %s: downloading its two jars once", delta.version)
    return {
        "spark.jars.packages": delta.package,
        "spark.jars.excludes": ",".join(EXCLUDED_MODULES),
    }


def _joined(paths: Iterable[Path]) -> str:
    return ",".join(str(path) for path in paths)


def _jars_in(directory: Path, delta: Delta) -> list[Path]:
    jars = [path for name in delta.jars for path in directory.glob(f"*{name}")]
    if len(jars) != len(delta.jars):
        present = sorted(path.name for path in directory.glob("*.jar"))
        raise InputError(
            f"--jars {directory}: expected {', '.join(delta.jars)}, "
            f"found {', '.join(present) or 'no jar'}."
        )
    return jars

"""Delta's two jars: which ones, and where a session gets them from."""

import logging
from collections.abc import Iterable
from pathlib import Path

import pyspark

from pipelines.errors import InputError, SetupError

log = logging.getLogger("reviewlake")

# By version of Spark: the artifact of Delta that is built for it, and its version.
DELTA_FOR_SPARK = {
    "4.0": ("delta-spark_2.13", "4.0.1"),
    "4.2": ("delta-spark_4.2_2.13", "4.4.0"),
}


def delta_for(spark_version: str) -> tuple[str, str]:
    """Return the artifact of Delta for a version of Spark, and its version. Raises SetupError."""
    release = ".".join(spark_version.split(".")[:2])
    if release not in DELTA_FOR_SPARK:
        known = " or ".join(DELTA_FOR_SPARK)
        raise SetupError(
            f"pyspark: expected {known}, found {spark_version}. Install pyspark==4.2.0."
        )
    return DELTA_FOR_SPARK[release]


DELTA_ARTIFACT, DELTA_VERSION = delta_for(pyspark.__version__)
DELTA_PACKAGE = f"io.delta:{DELTA_ARTIFACT}:{DELTA_VERSION}"
DELTA_JARS = (f"{DELTA_ARTIFACT}-{DELTA_VERSION}.jar", f"delta-storage-{DELTA_VERSION}.jar")

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
    if jars:
        return {"spark.jars": _joined(_jars_in(Path(jars)))}
    cache = Path.home() / ".ivy2.5.2" / "jars"
    cached = [cache / f"io.delta_{name}" for name in DELTA_JARS]
    if all(path.is_file() for path in cached):
        return {"spark.jars": _joined(cached)}
    log.info("Delta %s: downloading its two jars once", DELTA_VERSION)
    return {
        "spark.jars.packages": DELTA_PACKAGE,
        "spark.jars.excludes": ",".join(EXCLUDED_MODULES),
    }


def _joined(paths: Iterable[Path]) -> str:
    return ",".join(str(path) for path in paths)


def _jars_in(directory: Path) -> list[Path]:
    jars = [path for name in DELTA_JARS for path in directory.glob(f"*{name}")]
    if len(jars) != len(DELTA_JARS):
        present = sorted(path.name for path in directory.glob("*.jar"))
        raise InputError(
            f"--jars {directory}: expected {', '.join(DELTA_JARS)}, "
            f"found {', '.join(present) or 'no jar'}."
        )
    return jars

"""The environment in which our own Spark starts, whatever a shell or notebook has set before."""

import locale
import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pipelines.program import GATEWAY
from pipelines.provenance import python_path

log = logging.getLogger("reviewlake")

# They belong to another Spark, or would start something else than our script.
OVERRULED = (
    "MASTER",
    "PYSPARK_DRIVER_PYTHON",
    "PYSPARK_DRIVER_PYTHON_OPTS",
    "PYSPARK_GATEWAY_SECRET",
    "PYSPARK_SUBMIT_ARGS",
    "SPARK_API_MODE",
    "SPARK_CONNECT_MODE",
    GATEWAY,
)
UTF8 = "C.UTF-8"  # Java's errors in English, its numbers in ASCII digits, file names in UTF-8
# For JVMs that get another locale from JAVA_TOOL_OPTIONS. In some, Java writes numbers in digits of
# their own, also in the names of Delta's log files.
NEUTRAL_OPTIONS = "-Duser.language=en -Duser.country=US"


def own_spark(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables with which our own Spark starts; None removes one.

    Logs which of the given ones are overruled.
    """
    changes: dict[str, str | None] = dict.fromkeys(OVERRULED)
    changes["PYSPARK_PYTHON"] = sys.executable  # workers would take the first python3 on PATH
    home = spark_home()
    if home and environment.get("SPARK_HOME", str(home)) != str(home):
        changes["SPARK_CONF_DIR"] = None  # of the other Spark
    if home:
        changes["SPARK_HOME"] = str(home)
    overruled = sorted(
        name for name, value in changes.items() if environment.get(name, value) != value
    )
    if overruled:
        log.info(
            "environment: %s overruled, since this job starts its own Spark", ", ".join(overruled)
        )
    if sys.getfilesystemencoding() == "utf-8" and _has_locale(UTF8):
        changes["LC_ALL"] = UTF8
    return changes | {"PYTHONPATH": python_path(environment)}


def spark_home() -> Path | None:
    """Return the Spark inside the installed pyspark; None if it came with SPARK_HOME."""
    pyspark = find_spec("pyspark")
    home = Path(pyspark.origin).parent if pyspark and pyspark.origin else None
    return home if home and (home / "bin" / "spark-submit").exists() else None


def _has_locale(name: str) -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True

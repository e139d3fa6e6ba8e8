"""Our own Spark starts in any environment, and workers run exactly our code. Needs Spark."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import StringType

from pipelines import program, provenance
from pipelines.errors import SetupError
from pipelines.lake import own_spark

udf_of: Any = pandas_udf  # whose stubs do not know UDFs with type hints
SAID = "environment: {} overruled, since this job starts its own Spark"


@pytest.mark.parametrize(
    ("given", "changed", "overruled"),
    [
        ({}, {}, ""),
        ({"PYSPARK_DRIVER_PYTHON": "jupyter"}, {"PYSPARK_DRIVER_PYTHON": None}, "*"),
        ({"PYSPARK_SUBMIT_ARGS": "--master yarn"}, {"PYSPARK_SUBMIT_ARGS": None}, "*"),
        ({"PYSPARK_PYTHON": "python3"}, {"PYSPARK_PYTHON": sys.executable}, "*"),
        ({"PYSPARK_PYTHON": sys.executable}, {"PYSPARK_PYTHON": sys.executable}, ""),
        ({"PYSPARK_GATEWAY_PORT": "1"}, {"PYSPARK_GATEWAY_PORT": None}, "*"),
        ({"MASTER": "yarn"}, {"MASTER": None}, "*"),
        (
            {"SPARK_HOME": "/opt/spark-3.5", "SPARK_CONF_DIR": "/opt/spark-3.5/conf"},
            {"SPARK_HOME": str(own_spark.spark_home()), "SPARK_CONF_DIR": None},
            "SPARK_CONF_DIR, SPARK_HOME",
        ),
        ({"SPARK_HOME": str(own_spark.spark_home())}, {}, ""),
        ({"SPARK_CONF_DIR": "/etc/spark", "SPARK_LOCAL_DIRS": "/scratch"}, {}, ""),
        ({"JAVA_TOOL_OPTIONS": "-Dx=y", "SPARK_REMOTE": "sc://h"}, {}, ""),
        ({"LC_ALL": "fa_IR.UTF-8"}, {"LC_ALL": "C.UTF-8"}, ""),
    ],
)
def test_a_variable_of_another_spark_is_overruled_and_named(
    given: dict[str, str],
    changed: dict[str, str | None],
    overruled: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    changes = own_spark.own_spark(given)
    assert {name: changes[name] for name in changed} == changed
    assert given.keys() - changed.keys() - {"SPARK_HOME"} == given.keys() - changes.keys()
    names = next(iter(given)) if overruled == "*" else overruled
    assert caplog.messages == ([SAID.format(names)] if names else [])


def test_workers_import_our_code_first_and_nothing_from_the_current_directory(
    spark: SparkSession,
) -> None:
    def path_of_worker(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for batch in batches:
            yield pd.Series([os.pathsep.join(sys.path)] * len(batch))

    udf = udf_of(path_of_worker, StringType())
    row = spark.range(1).select(udf("id").alias("path")).first()
    assert row is not None
    paths = row["path"].split(os.pathsep)
    assert "" not in paths
    outside = [path for path in paths if "pyspark" not in path and "spark-" not in path]
    assert outside[0] == str(provenance.ROOT)
    assert not [path for path in paths if Path(path).name in ("tests", "jobs")]


def test_a_worker_with_other_code_ends_the_run_before_it_computes(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        yield from batches

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "package_sha256", lambda: "0123456789abcdef")
        checked = provenance.same_code(same)
    udf = udf_of(checked, "long")
    with pytest.raises(PySparkException) as caught:
        spark.range(1).select(udf("id")).first()
    error = program.from_worker(caught.value)
    assert isinstance(error, SetupError)
    assert f"the driver's code 0123456789ab of {provenance.ROOT}, found" in str(error)
    own = udf_of(provenance.same_code(same), "long")
    assert spark.range(1).select(own("id").alias("n")).first() == (0,)

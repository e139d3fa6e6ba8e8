"""One Spark session for the whole run, and an empty lake for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One Spark session in this process; it takes seconds to start."""
    session = get_session("tests", LakeConfig(lake=str(tmp_path_factory.mktemp("session"))))
    yield session
    session.stop()


@pytest.fixture
def lake(tmp_path: Path) -> LakeConfig:
    """The place of an empty lake; needs no Spark."""
    return LakeConfig(lake=str(tmp_path / "lake"))


@pytest.fixture
def store(spark: SparkSession, lake: LakeConfig) -> TableStore:
    """Tables of an empty lake, read and written by Spark."""
    return TableStore(spark, lake)

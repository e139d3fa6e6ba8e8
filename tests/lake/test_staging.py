"""Rows staged as Parquet files are read back, and the files are always deleted. Needs Spark."""

import pytest

from pipelines.errors import ConflictError
from pipelines.lake.config import LakeConfig
from pipelines.lake.staging import staged_parts
from pipelines.lake.tables import TableStore


@pytest.mark.parametrize("fails", [False, True])
def test_staged_rows_are_read_back_and_their_files_are_deleted_even_after_an_error(
    store: TableStore, lake: LakeConfig, fails: bool
) -> None:
    parts = [store.spark.createDataFrame([(name,)], "review_id string") for name in "ab"]
    staging = lake.landing_path / "staging"
    review_ids: list[str] = []
    try:
        with staged_parts(store, parts, "reviews") as rows:
            review_ids = [row.review_id for row in rows.orderBy("review_id").collect()]
            assert len(list(staging.glob("reviews-*/rows/part-*"))) >= 2
            if fails:
                raise ConflictError("inside")
    except ConflictError:
        assert fails
    assert review_ids == ["a", "b"]
    assert list(staging.iterdir()) == []

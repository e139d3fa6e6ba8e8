import pytest

from pipelines.errors import ConflictError
from pipelines.lake.config import LakeConfig
from pipelines.lake.staging import staged_parts
from pipelines.lake.tables import TableStore


@pytest.mark.parametrize("fails", [False, True])
def test_staged_rows_are_read_back_and_their_files_go_whatever_happens(
    store: TableStore, lake: LakeConfig, fails: bool
) -> None:
    parts = [store.spark.createDataFrame([(name,)], "review_id string") for name in "ab"]
    seen: list[str] = []
    try:
        with staged_parts(store, parts, "reviews") as rows:
            seen = [row.review_id for row in rows.orderBy("review_id").collect()]
            assert len(list((lake.landing_path / "staging").glob("reviews-*/part-*"))) >= 2
            if fails:
                raise ConflictError("inside")
    except ConflictError:
        assert fails
    assert seen == ["a", "b"]
    assert list((lake.landing_path / "staging").iterdir()) == []

"""A link that leads out of a lake or its landing directory is not followed. Needs Spark once."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.bundle.runner import save_state
from pipelines.errors import IntegrityError
from pipelines.ingest.fetch import fetch
from pipelines.lake.config import LakeConfig
from pipelines.lake.links import inside
from pipelines.lake.locks import is_held, table_lock
from pipelines.lake.scratch import remove_leftovers, scratch
from pipelines.operate.vacuum import clear_staging
from schemas import GOLD_REVIEWS

SHA256 = "ab" * 32
FUTURE_MS = 10**15
WORDS = r"leads out of .* through a link\. Nothing was written or deleted there"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is not the lake's, with one file."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("theirs")
    return tmp_path / "outside"


def use_scratch(landing: Path) -> None:
    with scratch(landing, "staging/clean"):
        raise AssertionError("written")


def read_location(landing: Path) -> None:
    LakeConfig(lake=str(landing.parent)).location(GOLD_REVIEWS)


# The link, relative to the lake; what it leads to, relative to `outside`; the step that meets it.
CASES: list[tuple[str, str, Callable[[Path], object]]] = [
    ("landing", "", lambda landing: LakeConfig(lake=str(landing.parent)).landing_path),
    ("landing/staging", "", use_scratch),
    ("landing/staging", "", remove_leftovers),
    ("landing/ingest-1", "", remove_leftovers),
    ("landing/staging", "", lambda landing: clear_staging(landing, FUTURE_MS)),
    ("landing/models", "", lambda landing: clear_staging(landing, FUTURE_MS)),
    ("landing/snapshot-1", "", lambda landing: clear_staging(landing, FUTURE_MS)),
    ("landing/x.partial", "file", lambda landing: clear_staging(landing, FUTURE_MS)),
    (
        f"landing/{SHA256}.partial",
        "file",
        lambda landing: fetch("https://127.0.0.1:1/x", SHA256, landing),
    ),
    (f"landing/{SHA256}", "", lambda landing: fetch("https://127.0.0.1:1/x", SHA256, landing)),
    ("landing/runs", "", lambda landing: save_state(landing / "runs" / "score.json", {})),
    (
        "landing/runs/score.json.partial",
        "file",
        lambda landing: save_state(landing / "runs" / "score.json", {}),
    ),
    ("gold", "", read_location),
    ("gold/reviews", "", read_location),
    ("gold/reviews/_delta_log", "", read_location),
    ("gold/reviews/_delta_log/_last_checkpoint", "file", read_location),
    ("locks", "", lambda landing: is_held(landing.parent / "locks" / "gold.reviews")),
    (
        "locks/gold.reviews",
        "file",
        lambda landing: is_held(landing.parent / "locks" / "gold.reviews"),
    ),
]


@pytest.mark.parametrize(("link", "target", "step"), CASES)
def test_no_step_follows_a_link_that_leads_out_and_what_is_there_stays(
    tmp_path: Path, outside: Path, link: str, target: str, step: Callable[[Path], object]
) -> None:
    lake = tmp_path / "lake"
    (lake / link).parent.mkdir(parents=True)
    (lake / link).symlink_to(outside / target)
    with pytest.raises(IntegrityError, match=WORDS) as caught:
        step(lake / "landing")
    assert (caught.value.exit_code, len(str(caught.value).splitlines())) == (3, 1)
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("file", "theirs")]


@pytest.mark.parametrize("has_jvm", [True, False])
@pytest.mark.parametrize("link", ["locks", "locks/gold.reviews"])
def test_no_lock_is_taken_through_a_link_that_leads_out(
    spark: SparkSession, tmp_path: Path, outside: Path, link: str, has_jvm: bool
) -> None:
    conf = SimpleNamespace(get=lambda _name, _default: "connect")
    connect_session: Any = SimpleNamespace(conf=conf)  # has no _jvm, as under Spark Connect
    lake = tmp_path / "lake"
    (lake / link).parent.mkdir(parents=True)
    (lake / link).symlink_to(outside / "file" if "/" in link else outside)
    session = spark if has_jvm else connect_session
    with (
        pytest.raises(IntegrityError, match=WORDS),
        table_lock(session, lake / "locks" / "gold.reviews", 1),
    ):
        raise AssertionError("locked")
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("file", "theirs")]


@pytest.mark.parametrize("target", ["gold/part-0.parquet", "absent"])
def test_a_lock_file_that_is_a_link_is_refused_and_its_target_stays(
    spark: SparkSession, tmp_path: Path, target: str
) -> None:
    (tmp_path / "gold").mkdir()
    (tmp_path / "gold" / "part-0.parquet").write_text("rows")
    (tmp_path / "locks").mkdir()
    file = tmp_path / "locks" / "gold.reviews"
    file.symlink_to(tmp_path / target)
    words = r"gold\.reviews: expected a lock file, found a link\. Nothing was written\. Remove"
    with pytest.raises(IntegrityError, match=words), table_lock(spark, file, 1):
        raise AssertionError("locked")
    with pytest.raises(IntegrityError, match=words):
        is_held(file)
    assert (tmp_path / "gold" / "part-0.parquet").read_text() == "rows"
    assert not (tmp_path / "absent").exists()


def test_the_error_for_a_linked_default_landing_names_the_flag(
    tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "landing").symlink_to(outside)
    words = r"Replace the link by a directory or file of its own, or pass --landing\.$"
    with pytest.raises(IntegrityError, match=words):
        _ = LakeConfig(lake=str(tmp_path / "lake")).landing_path


def test_links_that_stay_inside_and_a_root_behind_a_link_are_fine(tmp_path: Path) -> None:
    lake = tmp_path / "disk" / "lake"
    (lake / "landing" / "other").mkdir(parents=True)
    (lake / "landing" / "staging").symlink_to("other")
    (tmp_path / "lake").symlink_to(lake)
    config = LakeConfig(lake=str(tmp_path / "lake"))
    assert config.landing_path == tmp_path / "lake" / "landing"
    assert config.location(GOLD_REVIEWS) == str(tmp_path / "lake" / "gold" / "reviews")
    with scratch(config.landing_path, "staging/clean") as directory:
        assert directory.resolve().parent == lake / "landing" / "other"
    # --landing itself may be anywhere.
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    chosen = str(tmp_path / "elsewhere")
    assert LakeConfig(lake=str(lake), landing=chosen).landing_path == Path(chosen)


def test_a_link_that_leads_to_itself_is_refused_or_stays_inside(tmp_path: Path) -> None:
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    assert inside(tmp_path, tmp_path / "loop" / "x") == tmp_path / "loop" / "x"
    with pytest.raises(IntegrityError, match=WORDS):
        inside(tmp_path / "loop" / "root", tmp_path / "other")

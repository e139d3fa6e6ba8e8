"""jobs/doctor.py --deep shows rows that no run wrote, and versions that changed. Needs Spark."""

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import clean, curate, doctor, ingest, vacuum
from jobs.score import ScoreConfig
from pipelines.errors import IntegrityError
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.operate.deep import deep_faults
from pipelines.tracking.scoring import Scoring
from schemas import GOLD_REVIEWS, GOLD_SCORES, SILVER_REVIEWS
from tests.support.damage import invert_labels, rewrite
from tests.support.small_gold import encoder_in

pytestmark = pytest.mark.slow
REVIEWS = ["good film", "bad film", "so so", "good good", "bad bad", "film film"]
SCORE = """
    SELECT review_id, 'm' AS model_name, 1 AS model_version, .5D AS probability, 1 AS prediction,
      false AS is_truncated, CAST(NULL AS STRING) AS score_error, 'run' AS run_id,
      1L AS silver_version, source, origins, current_timestamp() AS scored_at
    FROM silver.reviews
"""


def write_csv(file: Path, n_reviews: int) -> list[str]:
    """Write the first reviews; return the flags that ingest them."""
    lines = [f"{text},{number % 2}" for number, text in enumerate(REVIEWS[:n_reviews])]
    file.write_text("\n".join(["body,label", *lines, ""]), encoding="utf-8")
    columns = ["--text-column", "body", "--label-column", "label"]
    return ["--source", "csv", "--name", "shop", "--path", str(file), *columns]


@pytest.fixture(scope="module")
def refined(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that ingested two files and refined both, with scores of a recorded run."""
    directory = tmp_path_factory.mktemp("refined")
    config = LakeConfig(lake=str(directory / "lake"))
    place = ["--lake", config.lake]
    encoder = encoder_in(directory / "encoder")
    for n_reviews in (4, 6):
        ingest.main([*write_csv(directory / f"{n_reviews}.csv", n_reviews), *place])
        clean.main(place)
        curate.main(["--backbone", encoder, *place])
    store = TableStore(spark, config)
    inputs = {SILVER_REVIEWS.name: store.version(SILVER_REVIEWS), "model_version": 1}
    run = ledger.start("score", ScoreConfig(Scoring(model_name="m"), lake=config), inputs)
    ledger.finish(store, run, [store.append(GOLD_SCORES, store.sql(SCORE))], {"in": 6})
    return config.lake_path


@pytest.fixture
def copied(store: TableStore, refined: Path) -> TableStore:
    """A copy of that lake, to be damaged."""
    shutil.copytree(refined, store.config.lake_path, dirs_exist_ok=True)
    return TableStore(store.spark, store.config)


def faults_of(store: TableStore) -> list[str]:
    """Return place and problem of each fault of a deep look."""
    faults = deep_faults(store, ledger.rows_of(store), needed=set())
    return [f"{fault.where}: {fault.problem}" for fault in faults]


def test_rows_that_were_changed_by_hand_are_reported_and_a_changed_property_is_not(
    copied: TableStore,
) -> None:
    copied.sql("ALTER TABLE bronze.reviews SET TBLPROPERTIES ('team' = 'us')")
    copied.sql("OPTIMIZE bronze.reviews")  # other files with the same rows
    assert faults_of(copied) == []
    copied.sql("DELETE FROM silver.reviews WHERE text = 'so so'")
    copied.sql("ALTER TABLE gold.reviews DROP CONSTRAINT label_is_binary")
    copied.sql("UPDATE gold.reviews SET label = 7 WHERE text = 'so so'")
    copied.sql("INSERT INTO gold.scores SELECT * FROM gold.scores")
    assert faults_of(copied) == [
        "silver.reviews: version 3 has other rows than version 2, which a run left last",
        "gold.reviews: label_is_binary does not hold in 1 rows",
        "gold.reviews: version 4 has other rows than version 2, which a run left last",
        "gold.scores: key review_id, model_name, model_version does not hold in 6 rows",
        "gold.scores: version 2 has other rows than version 1, which a run left last",
    ]


def test_a_version_with_other_rows_than_its_run_left_is_reported_with_both_hashes(
    copied: TableStore, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--lake", copied.config.lake, "--deep"]
    doctor.main(place)
    assert capsys.readouterr().out == ""
    by_version = [set(copied.read(GOLD_REVIEWS, version).inputFiles()) for version in (1, 2)]
    added = by_version[1] - by_version[0]
    file = Path(min(added).removeprefix("file:"))
    rewrite(file, invert_labels)
    with pytest.raises(IntegrityError, match="2 faults, listed above"):
        doctor.main(place)
    bytes_line, hash_line = capsys.readouterr().out.splitlines()
    assert bytes_line.startswith(f"gold/reviews/{file.name}: not the bytes that the row of curate,")
    assert hash_line.startswith("gold.reviews version 2: content hash ")
    assert ", but the row of curate, 20" in hash_line


def test_versions_that_a_vacuum_deleted_are_no_fault_but_files_deleted_by_hand_are(
    copied: TableStore,
) -> None:
    old_files = set(copied.read(SILVER_REVIEWS, 1).inputFiles())
    deleted = old_files - set(copied.read(SILVER_REVIEWS).inputFiles())
    assert deleted
    vacuum.main(["--lake", copied.config.lake, "--older-than-hours", "0"])
    assert not any(Path(uri.removeprefix("file:")).exists() for uri in deleted)
    assert faults_of(copied) == []
    rows = [row for row in ledger.rows_of(copied) if row["stage"] != "vacuum"]
    lines = [f"{fault.where}: {fault.problem}" for fault in deep_faults(copied, rows, set())]
    assert any(
        line.startswith("silver.reviews version 1: its data files cannot be") for line in lines
    )

"""The stream: each batch is what the jobs ingest, clean and score would do. Needs Spark."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs import clean, ingest, score
from jobs.stream import StreamConfig, interval_of
from pipelines import cli
from pipelines.bundle.graph import Script
from pipelines.bundle.runner import submit_command
from pipelines.errors import ConflictError
from pipelines.ingest.sources import Delivery
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.stream import Batch, Stream, follow
from pipelines.tracking.scoring import Scoring
from pipelines.tracking.store import connect
from schemas import GOLD_SCORES, OPS_DELIVERIES, OPS_RUNS
from tests.support.processes import ROOT, own_environment
from tests.support.registered import NAME, register_tiny

TEXTS = ["good film", "bad film", "good story", "bad story"]
OF_ITS_RUN = {"run_id", "silver_version", "scored_at"}  # the columns that tell two runs apart


class Watched:
    """A lake with a champion, and a folder that a stream watches."""

    def __init__(self, spark: SparkSession, place: Path) -> None:
        self.place = place
        self.folder = place / "landing"
        self.folder.mkdir(parents=True)
        self.store = TableStore(spark, LakeConfig(lake=str(place / "lake")))
        self.client = connect(self.store.config)
        self.promote(seed=0)
        self.stream = Stream(self.store, self.delivery, Scoring())

    @property
    def delivery(self) -> Delivery:
        return Delivery("csv", (str(self.folder),), name="shop")

    def promote(self, seed: int) -> None:
        register_tiny(self.store, self.client, self.place, TEXTS, seed)
        self.client.set_registered_model_alias(NAME, "champion", str(seed + 1))

    def deliver(self, name: str, *texts: str, age_s: float = 60) -> Path:
        """Write a file that was last changed this long ago."""
        file = self.folder / name
        file.write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
        changed_s = file.stat().st_mtime - age_s
        os.utime(file, (changed_s, changed_s))
        return file

    def scores(self) -> list[tuple[object, ...]]:
        """Read gold.scores by a reader of its own, without what differs from run to run."""
        columns = [name for name in GOLD_SCORES.column_names if name not in OF_ITS_RUN]
        table = DeltaTable(self.store.config.location(GOLD_SCORES)).to_pyarrow_table()
        return sorted(tuple(str(row[name]) for name in columns) for row in table.to_pylist())


@pytest.fixture
def watched(spark: SparkSession, tmp_path: Path) -> Watched:
    return Watched(spark, tmp_path / "watched")


def outcomes(batch: Batch | None) -> tuple[int, int, int, int] | None:
    """Return rows in, scored, rejected and duplicates."""
    return (batch.n_in, batch.n_scored, batch.n_rejected, batch.n_duplicates) if batch else None


def test_a_stream_leaves_the_rows_that_the_jobs_would(spark: SparkSession, tmp_path: Path) -> None:
    deliveries = [("1.csv", "good film", "bad film", " "), ("2.csv", "good film", "bad story")]
    streamed = Watched(spark, tmp_path / "streamed")
    batches = []
    for name, *texts in deliveries:
        streamed.deliver(name, *texts)
        batches.append(streamed.stream.run_batch())
    assert [outcomes(batch) for batch in batches] == [(3, 2, 1, 0), (2, 1, 0, 1)]
    assert streamed.stream.run_batch() is None  # nothing is new
    assert re.fullmatch(
        r"2 rows in, 1 scored, 0 rejected, 1 duplicates, [\d.]+ s, lag \d+\.\d s", str(batches[1])
    )
    assert batches[1]
    assert 60 < (batches[1].lag_s or 0) < 600  # the file was a minute old when the batch began
    rows = streamed.scores()
    assert len(rows) == 3

    by_jobs = Watched(spark, tmp_path / "by-jobs")
    flags = ["--lake", by_jobs.store.config.lake]
    for name, *texts in deliveries:
        file = by_jobs.deliver(name, *texts)
        ingest.main([*flags, "--source", "csv", "--name", "shop", "--path", str(file)])
        clean.main(flags)
        score.main(flags)
    assert by_jobs.scores() == rows
    # Each sees the other's runs: nothing is done twice.
    again = Stream(by_jobs.store, by_jobs.delivery, Scoring())
    assert again.run_batch() is None


def test_a_refused_file_is_named_once_and_a_fresh_one_waits_and_both_stop_no_other(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    bad = watched.folder / "bad.csv"
    bad.write_bytes(b'text\n"no end\n')
    os.utime(bad, (0, 0))
    watched.deliver("1.csv", "good film")
    fresh = watched.deliver("2.csv", "bad story", age_s=-3600)
    assert outcomes(watched.stream.run_batch(waits=True)) == (1, 1, 0, 0)
    runs = watched.store.version(OPS_RUNS)
    assert watched.stream.run_batch(waits=True) is None
    assert watched.store.version(OPS_RUNS) == runs
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [error.partition(":")[2].strip()[:13] for error in errors] == ["bad.csv row 1"]
    watched.deliver("bad.csv", "bad film")
    os.utime(fresh, (0, 0))
    assert outcomes(watched.stream.run_batch(waits=True)) == (2, 2, 0, 0)
    rows = watched.store.rows(OPS_DELIVERIES)
    assert sorted((Path(row["path"]).name, row["outcome"]) for row in rows) == [
        ("1.csv", "added"),
        ("2.csv", "added"),
        ("bad.csv", "added"),
        ("bad.csv", "refused"),
    ]


def test_without_a_path_the_champion_of_each_batch_scores_what_another_job_has_ingested(
    watched: Watched,
) -> None:
    assert watched.stream.run_batch() is None  # an empty folder is no error
    flags = ["--lake", watched.store.config.lake, "--source", "csv", "--name", "shop"]
    ingest.main([*flags, "--path", str(watched.deliver("1.csv", "good film"))])
    stream = Stream(watched.store, None, Scoring())
    batch = stream.run_batch()
    assert outcomes(batch) == (1, 1, 0, 0)
    assert batch
    assert 0 < (batch.lag_s or 0) < 300  # since it was ingested
    watched.promote(seed=1)
    ingest.main([*flags, "--path", str(watched.deliver("2.csv", "bad film"))])
    assert outcomes(stream.run_batch()) == (1, 2, 0, 0)  # also those of before
    assert stream.run_batch() is None
    rows = watched.store.read(GOLD_SCORES).groupBy("model_version").count().collect()
    assert {row["model_version"]: row["count"] for row in rows} == {1: 1, 2: 2}


BATCH = Batch(20, 19, 1, 0, duration_s=4.25, lag_s=None)


def test_a_stream_goes_on_after_a_conflict_and_ends_after_the_batch_in_hand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    stopping = threading.Event()
    results: list[Batch | ConflictError | None] = [ConflictError("held"), None, BATCH, BATCH]

    def run_batch() -> Batch | None:
        result = results.pop(0)
        if len(results) == 1:
            stopping.set()  # the signal comes in the middle of a batch
        if isinstance(result, ConflictError):
            raise result
        return result

    follow(run_batch, 0.0, stopping)
    assert results == [BATCH]
    assert caplog.messages == [
        "ConflictError: held",
        "batch 1: 20 rows in, 19 scored, 1 rejected, 0 duplicates, 4.2 s, lag unknown",
    ]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [("available-now", None), ("30 seconds", 30), ("1 second", 1), ("5 minutes", 300)],
)
def test_a_trigger_is_a_time_or_what_is_there(trigger: str, expected: float | None) -> None:
    assert cli.parse(StreamConfig, ["--trigger", trigger], None).trigger == trigger
    assert interval_of(trigger) == expected


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--trigger", "0 seconds"], '--trigger must be available-now, or a time such as "30'),
        (["--trigger", "30s"], '--trigger must be available-now, or a time such as "30'),
        (["--rerun"], "--rerun belongs to the jobs ingest, clean and score"),
        (
            ["--source", "csv", "--name", "n", "--path", "https://host/f.csv"],
            "--path must be on this machine or in a volume",
        ),
    ],
)
def test_a_flag_that_makes_no_stream_is_refused(flags: list[str], reason: str) -> None:
    assert reason in str(cli.complaint(StreamConfig, flags))


@pytest.mark.slow
@pytest.mark.parametrize("is_submitted", [True, False])
def test_sigterm_ends_a_stream_after_the_batch_in_hand_with_exit_code_0(
    watched: Watched, is_submitted: bool
) -> None:
    """Signal the process that was started: spark-submit's JVM, or Python with its whole group."""
    watched.deliver("1.csv", "good film")
    argv = ["--lake", watched.store.config.lake, "--trigger", "1 second", "--source", "csv"]
    script = Script("jobs/stream.py", (*argv, "--name", "shop", "--path", str(watched.folder)))
    command = [sys.executable, script.file, *script.argv]
    with subprocess.Popen(
        submit_command(ROOT, script) if is_submitted else command,
        cwd=ROOT,
        env=own_environment() | {"PYSPARK_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # spark-submit writes what Python logs to its stdout
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "bronze.reviews v1" in line:  # the batch is in hand
                if is_submitted:
                    process.send_signal(signal.SIGTERM)
                else:
                    os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == 0, lines
    assert any(line.startswith("batch 1: 1 rows in, 1 scored") for line in lines)
    assert lines[-1] == "stream: stopped\n"
    assert len(watched.scores()) == 1

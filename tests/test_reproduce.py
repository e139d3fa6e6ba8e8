"""Reproduction: verdict, report, and a training that is repeated bit for bit. Needs Spark."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow.entities import Run

from jobs import reproduce as job
from jobs import train
from pipelines import cli
from pipelines.errors import InputError, IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import content_hash
from pipelines.lake.tables import TableStore
from pipelines.reproduce import (
    DIFFERENT,
    IDENTICAL,
    WITHIN,
    Comparison,
    Evidence,
    compare,
    figures_of,
    report,
    require_same_data,
    settings_of,
    surroundings_that_differ,
    verdict_of,
)
from pipelines.tracking import model_table
from pipelines.tracking.model_table import ModelRecord
from pipelines.tracking.runs import PastRun
from pipelines.tracking.store import connect
from pipelines.train.loop import fit
from pipelines.train.settings import TrainSettings
from pipelines.train.training import TrainedModel, train_model
from schemas import GOLD_REVIEWS, OPS_MODELS, OPS_RUNS
from tests.support.preload import library
from tests.support.small_gold import TRAIN, encoder_in, gold_rows

ROOT = Path(__file__).resolve().parent.parent

MODEL = ModelRecord("m", 2, "r1", 5, 4, 3, "hash5", "a" * 64, [])
RUN = PastRun("r1", "e", {}, {"git.commit": "c0ffee" * 6, "git.dirty": "false"}, {}, {})


def predictions(*probabilities: float) -> pa.Table:
    probability = np.array(probabilities)
    return pa.table(
        {
            "review_id": [f"r{number}" for number in range(len(probability))],
            "probability": probability,
            "prediction": (probability >= 0.5).astype(np.int64),
        }
    )


FIRST = Evidence(
    "a" * 64, {"valid_loss of epoch 1": 0.5, "test_accuracy": 0.9}, predictions(0.1, 0.9, 0.4)
)


@pytest.mark.parametrize(
    ("again", "expected", "verdict"),
    [
        (FIRST, Comparison(True, "", 0.0, 0.0, 0.0, 0, 3), IDENTICAL),
        (
            replace(FIRST, predictions=FIRST.predictions.take([2, 0, 1])),
            Comparison(True, "", 0, 0, 0, 0, 3),
            IDENTICAL,
        ),
        (
            replace(FIRST, weights_sha256="b" * 64),
            Comparison(False, "", 0.0, 0.0, 0.0, 0, 3),
            WITHIN,
        ),
        (
            replace(FIRST, metrics={**FIRST.metrics, "test_accuracy": 0.89}),
            Comparison(True, "test_accuracy", 0.01, 0.0, 0.0, 0, 3),
            WITHIN,
        ),
        (
            replace(FIRST, predictions=predictions(0.1, 0.9, 0.43)),
            Comparison(True, "", 0.0, 0.03, 0.01, 0, 3),
            WITHIN,
        ),
        (
            replace(FIRST, predictions=predictions(0.1, 0.9, 0.7)),
            Comparison(True, "", 0.0, 0.3, 0.1, 1, 3),
            DIFFERENT,
        ),
        (
            replace(FIRST, metrics={**FIRST.metrics, "valid_loss of epoch 2": 0.4}),
            Comparison(True, "valid_loss of epoch 2", math.inf, 0.0, 0.0, 0, 3),
            DIFFERENT,
        ),
        (
            replace(FIRST, metrics={**FIRST.metrics, "test_accuracy": math.nan}),
            Comparison(True, "test_accuracy", math.inf, 0.0, 0.0, 0, 3),
            DIFFERENT,
        ),
    ],
    ids=["same", "other order", "weights", "metric", "close", "far", "an epoch more", "nan"],
)
def test_the_verdict_follows_weights_metrics_and_every_row(
    again: Evidence, expected: Comparison, verdict: str
) -> None:
    comparison = compare(FIRST, again)
    assert comparison.is_same_weights == expected.is_same_weights
    assert comparison.metric == expected.metric
    assert comparison.n_flipped == expected.n_flipped
    assert comparison.n_rows == expected.n_rows
    assert comparison.metric_difference == pytest.approx(expected.metric_difference)
    assert comparison.probability_difference == pytest.approx(expected.probability_difference)
    assert comparison.mean_difference == pytest.approx(expected.mean_difference)
    assert verdict_of(comparison, tolerance=0.02) == verdict


def test_different_test_rows_are_refused() -> None:
    with pytest.raises(
        IntegrityError,
        match=r"test rows: expected the 3 that the run logged, found 2 of other ids\.",
    ):
        compare(FIRST, replace(FIRST, predictions=predictions(0.1, 0.9)))


def test_each_difference_is_reported_with_its_cause() -> None:
    recorded = {
        "git.commit": "a",
        "git.dirty": "false",
        "python": "3.11",
        "torch.threads": "2",
        "lock.sha256": "l",
    }
    assert surroundings_that_differ(recorded, recorded) == []
    current = recorded | {"git.commit": "b", "torch.threads": "4", "cpu.flags": "avx2"}
    assert surroundings_that_differ(recorded, current) == [
        "code: git.commit was a, is b",
        "hardware: cpu.flags was not recorded, is avx2",
        "hardware: torch.threads was 2, is 4",
    ]


@pytest.mark.parametrize(
    ("trained_on", "flag", "device"),
    [
        ("cpu", "recorded", "cpu"),  # bit-identical also on a machine with a GPU
        ("cuda:0", "recorded", "cuda"),  # stops without one
        ("mps", "recorded", "auto"),
        ("cuda:0", "auto", "auto"),
        ("cuda:0", "cpu", "cpu"),
    ],
)
def test_a_run_is_repeated_on_its_own_kind_of_device_and_threads_unless_another_is_asked_for(
    trained_on: str, flag: str, device: str
) -> None:
    params = {name: str(value) for name, value in cli.as_params(TrainSettings(seed=7)).items()}
    del params["device"]  # as in runs before --device
    run = replace(RUN, params=params, tags={"device": trained_on, "torch.threads": "3"})
    assert settings_of(run, flag) == TrainSettings(seed=7, threads=3, device=device)


def test_data_with_another_content_hash_is_refused() -> None:
    require_same_data(MODEL, "hash5")
    words = (
        r"^not reproduced: gold\.reviews version 5: "
        r"expected content hash hash5, as m version 2 read, found hash6\."
    )
    with pytest.raises(IntegrityError, match=words):
        require_same_data(MODEL, "hash6")


@pytest.mark.parametrize(
    ("verdict", "differing", "tags", "expected"),
    [
        (IDENTICAL, [], {}, ["verdict  bit-identical"]),
        (
            WITHIN,
            ["code: git.commit was a, is b"],
            {},
            [
                r"git worktree add \.\./reviewlake-c0ffeec0 (c0ffee){6}$",
                "warning  not bit-identical. Differs: code",
            ],
        ),
        (
            WITHIN,
            [],
            {},
            ["warning  not bit-identical. Differs: Nothing recorded differs: check the machine"],
        ),
        (
            IDENTICAL,
            [],
            {"git.dirty": "true"},
            ["warning  the run's code had changes that were not committed"],
        ),
    ],
)
def test_the_report_ends_with_the_verdict_and_says_how_to_restore_the_code(
    verdict: str, differing: list[str], tags: dict[str, str], expected: list[str]
) -> None:
    comparison = Comparison(verdict == IDENTICAL, "", 0.0, 0.0, 0.0, 0, 3)
    run = replace(RUN, tags={**RUN.tags, **tags})
    lines = report(MODEL, run, verdict, comparison, differing)
    assert lines[-1] == f"verdict  {verdict}"
    for words in expected:
        assert re.search(words, "\n".join(lines), re.MULTILINE), lines
    assert ("warning" in "\n".join(lines)) == (verdict == WITHIN or "git.dirty" in tags)


def test_figures_are_logged_only_if_there_is_a_comparison() -> None:
    assert figures_of(None) == {}
    assert figures_of(Comparison(False, "x", 0.1, 0.2, 0.05, 7, 9)) == {
        "largest_metric_difference": 0.1,
        "largest_probability_difference": 0.2,
        "mean_probability_difference": 0.05,
        "rows_called_otherwise": 7,
    }


APPEND = """
    import sys
    from pipelines.lake.session import LakeConfig, get_session
    from pipelines.lake.tables import TableStore
    from schemas import GOLD_REVIEWS
    from tests.support.small_gold import gold_rows
    lake = LakeConfig(lake=sys.argv[1])
    store = TableStore(get_session("second", lake), lake)
    store.append(GOLD_REVIEWS, gold_rows(store, 64, 80))
"""


def newest_run(store: TableStore) -> Run:
    client = connect(store.config)
    experiment = client.get_experiment_by_name("review_classifier")
    assert experiment
    return client.search_runs(
        [experiment.experiment_id], order_by=["start_time DESC"], max_results=1
    )[0]


@pytest.mark.slow
def test_a_run_logs_the_version_it_reads_while_another_process_writes_and_is_reproduced(
    store: TableStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.append(GOLD_REVIEWS, gold_rows(store, 0, 64))
    read = content_hash(store.read(GOLD_REVIEWS, 1))
    written = []

    def fit_beside_a_writer(*arguments: Any, **named: Any) -> Any:
        command = [sys.executable, "-c", textwrap.dedent(APPEND), store.config.lake]
        written.append(
            subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        )
        return fit(*arguments, **named)

    monkeypatch.setattr("pipelines.train.training.fit", fit_beside_a_writer)
    place = ["--lake", store.config.lake]
    train.main([*place, *TRAIN, "--backbone", encoder_in(tmp_path / "encoder")])
    assert [done.returncode for done in written] == [0], written
    assert (store.version(GOLD_REVIEWS), store.read(GOLD_REVIEWS).count()) == (2, 80)
    run = newest_run(store)
    assert (run.data.tags["delta.version"], run.data.tags["content_hash"]) == ("1", read)
    assert run.data.metrics["test_rows"] == 16

    monkeypatch.setattr("pipelines.train.training.fit", fit)
    capsys.readouterr()
    before = torch.get_num_threads()
    # The recorded number is restored, here as on another machine.
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        job.main([run.info.run_id, *place])
        assert torch.get_num_threads() != before
    finally:
        torch.set_num_threads(before)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"run      {run.info.run_id}, review_classifier version 1"
    assert lines[1] == f"data     identical: gold.reviews version 1, content hash {read}"
    assert lines[-2].startswith(
        "result   weights equal; 0 of 16 predictions differ; probability differs by at most 0, on"
    )
    assert lines[-1] == "verdict  bit-identical"
    again = newest_run(store)
    assert (again.data.tags["reproduces"], again.data.tags["verdict"]) == (
        run.info.run_id,
        "bit-identical",
    )
    assert again.data.metrics["rows_called_otherwise"] == 0

    job.main(["models:/review_classifier@challenger", *place, "--data-only"])
    assert capsys.readouterr().out.splitlines()[-1] == "verdict  data identical"
    stages = [row.stage for row in store.read(OPS_RUNS).orderBy("finished_at").collect()]
    assert stages == ["train", "reproduce", "reproduce"]

    known = model_table.model_records(store)

    def train_with_another_seed(
        snapshot: Path, backbone: Path, settings: TrainSettings
    ) -> TrainedModel:
        return train_model(snapshot, backbone, replace(settings, seed=settings.seed + 1))

    monkeypatch.setattr("pipelines.reproduce.train_model", train_with_another_seed)
    with pytest.raises(
        IntegrityError,
        match=r"not reproduced: weights differ; .* Differs: Nothing recorded differs",
    ):
        job.main([run.info.run_id, *place, "--tolerance", "0"])
    assert newest_run(store).data.tags["verdict"] == "not reproduced"
    monkeypatch.setattr(
        "pipelines.tracking.model_table.model_records",
        lambda _: [replace(record, content_hash="0" * 32) for record in known],
    )
    with pytest.raises(
        IntegrityError,
        match=r"^not reproduced: gold\.reviews version 1: expected content hash 0000",
    ):
        job.main([run.info.run_id, *place])
    assert newest_run(store).data.tags["verdict"] == "not reproduced"
    ledger = store.read(OPS_RUNS).where("stage = 'reproduce'").orderBy("finished_at").collect()
    assert [(row.state, json.loads(row.config)["verdict"]) for row in ledger] == [
        ("done", "bit-identical"),
        ("done", "data identical"),
        ("refused", "not reproduced"),
        ("refused", "not reproduced"),
    ]
    with pytest.raises(
        InputError, match=r"run 0: expected the id of a run in ops\.models, found none"
    ):
        job.main(["0", *place])


@pytest.mark.stress
@pytest.mark.timeout(400)
def test_weights_are_bit_identical_in_another_place_for_another_user_at_another_time(
    store: TableStore, tmp_path: Path
) -> None:
    """Train from version 0, which has rows here, as after CREATE TABLE AS."""
    gold_rows(store, 0, 64).write.format("delta").save(store.config.location(GOLD_REVIEWS))
    here = TableStore(store.spark, store.config)
    assert here.version(GOLD_REVIEWS) == 0
    elsewhere = LakeConfig(lake=str(tmp_path / "other place" / "lake"))
    shutil.copytree(store.config.location(GOLD_REVIEWS), elsewhere.lake_path / "gold" / "reviews")
    encoder = encoder_in(tmp_path / "encoder")
    flags = [*TRAIN, "--backbone", encoder, "--gold-version", "0"]
    train.main(["--lake", store.config.lake, *flags])
    assert newest_run(store).data.tags["delta.version"] == "0"

    stranger = {
        "HOME": str(tmp_path),
        "USER": "somebody",
        "TZ": "Pacific/Auckland",
        "PYTHONHASHSEED": "7",
        "LD_PRELOAD": str(library("clock", tmp_path)),
        "CLOCK_AHEAD_S": str(400 * 86_400),
    }
    jars = str(Path.home() / ".ivy2.5.2" / "jars")
    place = ["--lake", elsewhere.lake, "--jars", jars]
    command = [sys.executable, str(ROOT / "jobs/train.py"), *place, *flags]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | stranger,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = TableStore(store.spark, elsewhere).read(OPS_MODELS).collect()[0]
    ours = TableStore(store.spark, store.config).read(OPS_MODELS).collect()[0]
    assert theirs.registered_at.year > ours.registered_at.year  # the other clock was ahead
    assert theirs.weights_sha256 == ours.weights_sha256
    assert theirs.content_hash == ours.content_hash
    assert theirs.gold_version == 0

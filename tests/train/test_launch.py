import dataclasses
import json
import os
import re
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from jobs import reproduce, train
from pipelines import cli, program
from pipelines.errors import InputError, IntegrityError, JobError, SetupError
from pipelines.ingest.sources import packaged_file
from pipelines.lake.config import LakeConfig
from pipelines.lake.snapshot import SCHEMA, labels_of, open_snapshot, rows_of
from pipelines.lake.tables import TableStore
from pipelines.model import classifier
from pipelines.model.backbone import EMBEDDED, find, load_tokenizer
from pipelines.tracking import model_table
from pipelines.tracking.store import connect
from pipelines.train import launch
from pipelines.train.encoder import load_for_training
from pipelines.train.launch import fit_in_processes, write_shards
from pipelines.train.loop import EpochRow, Fit, fit
from pipelines.train.ranks import ALONE, Ranks, epoch_batches, ranks_of
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import open_shards, predict_policy, tokenise_rows
from pipelines.train.training import train_model
from schemas import GOLD_REVIEWS
from tests.support.processes import LOOPBACK, descendants, listening, variable
from tests.support.small_gold import TRAIN, encoder_in, gold_rows
from tests.support.tiny_encoder import build
from tests.train.test_loop import SETTINGS, WORDS, reviews

TWO = dataclasses.replace(SETTINGS, processes=2, threads=2)
N_TRAIN, N_VALID = (
    97,
    33,
)  # neither by 2 nor by the batch of 8: the last batch has one row, so one rank has none


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("encoder"), WORDS)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = {"train": reviews(N_TRAIN, 1), "validation": reviews(N_VALID, 2)}
    return write(tmp_path_factory.mktemp("snapshot") / "gold.arrow", texts)


def write(file: Path, splits: dict[str, tuple[list[Any], NDArray[np.int64]]]) -> Path:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for split, (texts, labels) in splits.items():
            n = len(texts)
            columns = {
                "review_id": [f"{split}{row:06d}" for row in range(n)], "text": texts, "label": labels,
                "split": [split] * n, "source": ["imdb"] * n, "n_characters": [1] * n, "n_tokens": [1] * n,
                "states_score": [False] * n,
            }  # fmt: skip
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return file


class Trained:
    """One training of the tiny backbone, in this process or in several, with all that it told its caller."""

    def __init__(
        self, backbone: Path, snapshot: Path, settings: TrainSettings, look: Callable[[], None]
    ) -> None:
        self.model, tokenizer = load_for_training(
            backbone, settings.seed, settings.dropout, settings.max_tokens
        )
        self.steps: list[tuple[int, float, float]] = []
        self.epochs: list[EpochRow] = []

        def on_step(*step: Any) -> None:
            self.steps.append(step)
            look()

        self.fitted: Fit
        if settings.processes > 1:
            self.fitted = fit_in_processes(
                self.model, tokenizer, snapshot, settings, on_step, self.epochs.append
            )
        else:
            tables = [rows_of(open_snapshot(snapshot), split) for split in ("train", "validation")]
            rows = [
                tokenise_rows(table, tokenizer, predict_policy(settings))[0] for table in tables
            ]
            labels = [labels_of(table) for table in tables]
            self.fitted = fit(
                self.model, rows[0], labels[0], rows[1], labels[1], settings, on_step, self.epochs.append
            )  # fmt: skip

    @property
    def weights(self) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in self.model.state_dict().items()}


def nothing() -> None:
    pass


addresses: set[str] = set()


def note_addresses() -> None:
    addresses.update(
        *(listening(pid) for pid in descendants(os.getpid()) if variable(pid, "PET_LOCAL_ADDR"))
    )


@pytest.fixture(scope="module")
def in_two(spark: SparkSession, backbone: Path, snapshot: Path) -> Trained:
    assert spark
    return Trained(backbone, snapshot, TWO, note_addresses)


@pytest.fixture(scope="module")
def in_one(backbone: Path, snapshot: Path) -> Trained:
    return Trained(backbone, snapshot, SETTINGS, nothing)


def test_two_processes_take_the_steps_of_one_up_to_rounding(
    in_two: Trained, in_one: Trained
) -> None:
    """Loss by loss: a row lost, trained twice or weighed wrongly would show in the first epoch."""
    assert len(in_two.steps) == len(in_one.steps) == TWO.n_steps(N_TRAIN) == 4 * 13
    np.testing.assert_allclose(in_two.steps, in_one.steps, atol=1e-4)
    for name, value in in_one.model.state_dict().items():
        torch.testing.assert_close(
            in_two.model.state_dict()[name], value, atol=2e-3, rtol=0, msg=name
        )


def test_two_processes_give_the_metrics_of_one(in_two: Trained, in_one: Trained) -> None:
    two, one = (
        np.array([dataclasses.astuple(row) for row in run.epochs], dtype=float)
        for run in (in_two, in_one)
    )
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert in_two.epochs == in_two.fitted.history
    assert in_two.fitted.best_epoch == in_one.fitted.best_epoch
    assert in_two.fitted.n_steps == in_one.fitted.n_steps
    np.testing.assert_allclose(in_two.fitted.valid_logits, in_one.fitted.valid_logits, atol=1e-3)


def test_what_comes_back_are_the_weights_that_gave_the_logits(
    in_two: Trained, backbone: Path, snapshot: Path
) -> None:
    rows, _ = tokenise_rows(
        rows_of(open_snapshot(snapshot), "validation"),
        load_tokenizer(backbone),
        predict_policy(TWO),
    )
    logits = classifier.predict_logits(in_two.model, rows, predict_policy(TWO))
    np.testing.assert_allclose(logits, in_two.fitted.valid_logits, atol=1e-6)


def test_the_ranks_listen_on_loopback_only(in_two: Trained) -> None:
    assert in_two.steps
    assert addresses
    assert addresses <= set(LOOPBACK)


def test_nothing_is_left_beside_the_snapshot(in_two: Trained, snapshot: Path) -> None:
    assert in_two.steps
    assert [path.name for path in snapshot.parent.iterdir()] == ["gold.arrow"]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_run_in_two_processes_is_recorded_and_reproduced_bit_by_bit(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also from a relative lake and backbone: the ranks start in another directory."""
    monkeypatch.chdir(tmp_path)
    encoder_in(tmp_path / "encoder")
    place = LakeConfig(lake="lake")
    store = TableStore(spark, place)
    store.append(GOLD_REVIEWS, gold_rows(store, 0, 60))
    train.main(["--lake", "lake", *TRAIN, "--backbone", "encoder", "--processes", "2"])
    record = model_table.model_records(store)[0]
    client = connect(place)
    assert client.get_run(record.run_id).data.params["processes"] == "2"
    n_steps = TrainSettings(batch_size=8, epochs=2).n_steps(30)
    told = client.get_metric_history(record.run_id, "step_loss")
    assert [metric.step for metric in told] == list(range(1, n_steps + 1))
    assert len(client.get_metric_history(record.run_id, "valid_loss")) == 2

    capsys.readouterr()
    reproduce.main([record.run_id, "--lake", "lake"])
    lines = capsys.readouterr().out.splitlines()  # and no word of the ranks
    assert {line.split()[0] for line in lines} <= {
        "run",
        "data",
        "differs",
        "warning",
        "result",
        "verdict",
    }
    assert lines[-1] == "verdict  bit-identical"


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_a_killed_rank_ends_the_training_soon(backbone: Path, snapshot: Path) -> None:
    killed: list[tuple[int, float]] = []

    def kill_one() -> None:
        if not killed:
            [pid] = [pid for pid in descendants(os.getpid()) if variable(pid, "RANK") == "1"]
            os.kill(pid, signal.SIGKILL)
            killed.append((pid, time.monotonic()))

    long = dataclasses.replace(TWO, epochs=100, patience=100)
    with pytest.raises(
        SetupError,
        match=r"^training in 2 processes: rank 1 was ended by signal 9 \(SIGKILL\), as the",
    ):
        Trained(backbone, snapshot, long, kill_one)
    [(pid, at)] = killed
    assert time.monotonic() - at < 90
    assert not Path(f"/proc/{pid}").exists()
    assert [pid for pid in descendants(os.getpid()) if variable(pid, "RANK")] == []


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_what_a_rank_refuses_arrives_in_its_own_words(backbone: Path, snapshot: Path) -> None:
    words = r"^--freeze-layers must be -3\.\.2 \(the backbone's layers\), got 9$"
    with pytest.raises(InputError, match=words) as caught:
        Trained(backbone, snapshot, dataclasses.replace(TWO, freeze_layers=9), nothing)
    assert program.exit_code(caught.value) == 2
    assert "Root Cause" in "".join(
        traceback.format_exception(caught.value)
    )  # what torchrun printed, for --debug


TORCHRUN = """
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_15:00:00
  rank      : {rank} (local_rank: {rank})
  exitcode  : {code} (pid: 4711)
  error_file: <N/A>
"""


@pytest.mark.parametrize(
    ("noted", "output", "kind", "line"),
    [
        (
            {"kind": "IntegrityError", "line": "step 3: x"},
            TORCHRUN.format(rank=0, code=1),
            IntegrityError,
            "^step 3",
        ),
        (
            None,
            TORCHRUN.format(rank=1, code=-9),
            SetupError,
            r"^training in 2 processes: rank 1 .* signal 9",
        ),
        (
            None,
            TORCHRUN.format(rank=0, code=1)
            + TORCHRUN.format(rank=2, code=-15)
            + TORCHRUN.format(rank=1, code=-6),
            SetupError,
            r"rank 1 .* signal 6 \(SIGABRT",
        ),
        (
            None,
            TORCHRUN.format(rank=1, code=1),
            JobError,
            r"rank 1 ended with exit code 1\. Rerun with --debug",
        ),
        (None, "no word of torchrun", JobError, r"no result, and no rank said why\."),
    ],
    ids=["noted", "killed", "killed and bereaved", "unworded", "nothing known"],
)
def test_how_a_rank_ended_is_one_line(
    tmp_path: Path, noted: dict[str, str] | None, output: str, kind: type[JobError], line: str
) -> None:
    if noted:
        (tmp_path / "fault-1.json").write_text(json.dumps(noted), encoding="utf-8")
    found = launch._fault(tmp_path, 2, output)
    assert type(found) is kind
    assert re.search(line, str(found))
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("x"), "InputError"),
        (OSError("No space left on device"), "SetupError"),
        (OSError("x"), "JobError"),
    ],
)
def test_a_rank_notes_why_it_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def give_up(*_: Any) -> None:
        raise error

    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "_train", give_up)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_: None)
    params = {name: str(value) for name, value in cli.as_params(TWO).items()}
    before = torch.get_num_threads()
    with pytest.raises(type(error)):
        launch.train_rank("no snapshot", str(tmp_path), "", before, params)
    assert json.loads((tmp_path / "fault-0.json").read_text(encoding="utf-8"))["kind"] == kind


def test_an_event_that_is_not_yet_written_to_its_end_waits(tmp_path: Path) -> None:
    steps: list[tuple[float, ...]] = []
    epochs: list[EpochRow] = []
    follower = launch._Follower(
        tmp_path / "events.jsonl", lambda *step: steps.append(step), epochs.append
    )
    row = EpochRow(1, 0.7, 0.6, 0.5, None, 0.0, 0.0)
    with (tmp_path / "events.jsonl").open("a", encoding="utf-8") as file:
        for text, n_steps in (('{"step": [1, 0.5, 0.1]}\n{"st', 1), ('ep": [2, 0.4, 0.1]}\n', 2)):
            file.write(text)
            file.flush()
            follower.write("any line\n")
            assert len(steps) == n_steps
        file.write(json.dumps({"epoch": dataclasses.asdict(row)}) + "\n")
    follower.follow()
    assert (steps, epochs) == ([(1, 0.5, 0.1), (2, 0.4, 0.1)], [row])


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 40), st.integers(1, 7)
)
def test_the_ranks_together_take_every_row_once_an_epoch(
    lengths: list[int], batch_size: int, n: int
) -> None:
    taken: list[int] = []
    for batch in epoch_batches(np.array(lengths, dtype=np.int64), batch_size, 1, 1):
        parts = [Ranks(rank, n).part_of(batch) for rank in range(n)]
        taken += [row for rows, share in parts if share for row in rows.tolist()]
        assert sum(share for _, share in parts) == pytest.approx(1.0)
        assert all(
            len(rows) for rows, _ in parts
        )  # also where the share is 0: a gradient of the right shape
    assert sorted(taken) == list(range(len(lengths)))


def test_the_parts_of_a_batch_are_of_similar_length() -> None:
    """Ranks wait for each other in every step, so what counts is the dearest part of each."""
    lengths = np.random.default_rng(0).integers(1, 129, 4_000)
    batches = epoch_batches(lengths, 32, 1, 1)
    parts = [[Ranks(rank, 4).part_of(batch)[0] for rank in range(4)] for batch in batches]
    dearest = sum(max(len(rows) * lengths[rows].max() for rows in of_batch) for of_batch in parts)
    assert dearest < 1.05 * lengths.sum() / 4


@given(st.integers(0, 50), st.integers(1, 9))
def test_the_shards_are_contiguous_and_hold_every_row_once(n_rows: int, n: int) -> None:
    shards = [list(range(n_rows))[Ranks(rank, n).shard_of(n_rows)] for rank in range(n)]
    assert [row for shard in shards for row in shard] == list(range(n_rows))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("n", [1, 2, 3, 40])  # 40: more ranks than validation rows
def test_a_rank_reads_no_text_but_its_own_and_all_shards_together_are_the_split(
    tmp_path: Path, backbone: Path, n: int
) -> None:
    splits = {"train": reviews(N_TRAIN, 1), "validation": reviews(N_VALID, 2)}
    tokenizer = load_tokenizer(backbone)
    for rank in range(n):
        ranks = Ranks(rank, n)
        # Elsewhere stands no text: the tokenizer raises at the first one that it is given.
        own = {
            split: ([text if row in range(len(texts))[ranks.shard_of(len(texts))] else None
                     for row, text in enumerate(texts)], labels)
            for split, (texts, labels) in splits.items()
        }  # fmt: skip
        write_shards(
            open_snapshot(write(tmp_path / "gold.arrow", own)), tmp_path, tokenizer, TWO, ranks
        )
    for split, (texts, labels) in splits.items():
        rows, found = open_shards([tmp_path / f"{split}-{rank}" for rank in range(n)])
        expected, _, _ = classifier.tokenise(tokenizer, texts, predict_policy(TWO))
        assert [rows[row].tolist() for row in range(len(rows))] == [
            one.tolist() for one in expected
        ]
        assert found.tolist() == labels.tolist()


def test_a_rank_knows_its_place_and_alone_it_is_the_whole() -> None:
    assert ranks_of({"RANK": "1", "WORLD_SIZE": "3"}) == Ranks(1, 3)
    rows, share = ALONE.part_of(np.arange(5))
    assert (rows.tolist(), share, ALONE.shard_of(5)) == ([0, 1, 2, 3, 4], 1.0, slice(0, 5))


@pytest.mark.parametrize(
    ("threads", "processes", "expected"), [(4, 2, 2), (5, 2, 2), (1, 2, 1), (8, 3, 2)]
)
def test_the_threads_are_shared_by_the_processes(
    threads: int, processes: int, expected: int
) -> None:
    settings = dataclasses.replace(SETTINGS, threads=threads, processes=processes)
    assert launch._threads_of_each(settings) == expected


@pytest.mark.stress
@pytest.mark.usefixtures("spark")
@pytest.mark.timeout(1_800)
def test_the_real_backbone_on_real_reviews_is_worth_the_same_from_one_process_and_from_two(
    tmp_path: Path,
) -> None:
    reviews = pd.read_csv(packaged_file()[0]).sample(1_000, random_state=1)
    texts, labels = reviews["text"].tolist(), reviews["label"].to_numpy(np.int64)
    parts = {"train": slice(0, 600), "validation": slice(600, 800), "test": slice(800, 1_000)}
    file = write(
        tmp_path / "gold.arrow",
        {split: (texts[rows], labels[rows]) for split, rows in parts.items()},
    )
    settings = TrainSettings(epochs=2, threads=2)
    one, two = (
        train_model(file, find(EMBEDDED), dataclasses.replace(settings, processes=n))
        for n in (1, 2)
    )
    for first, second in zip(one.fitted.history, two.fitted.history, strict=True):
        assert second.train_loss == pytest.approx(first.train_loss, abs=0.01)
        assert second.valid_loss == pytest.approx(first.valid_loss, abs=0.01)
        assert second.valid_accuracy == pytest.approx(first.valid_accuracy, abs=0.02)
    accuracies = [(run.test_predictions == run.test_labels).mean() for run in (one, two)]
    assert accuracies[0] > 0.75  # it has learned, so there is something to compare
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)
    assert np.abs(one.test_probability - two.test_probability).mean() < 0.01

"""Several processes train as one does, listen on loopback only, and report errors. Needs Spark."""

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
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from jobs import reproduce, train
from pipelines import cli, program
from pipelines.errors import InputError, IntegrityError, JobError, SetupError
from pipelines.ingest.sources import packaged_file
from pipelines.lake.config import LakeConfig
from pipelines.lake.snapshot import SCHEMA, open_snapshot, rows_of
from pipelines.lake.tables import TableStore
from pipelines.model import classifier
from pipelines.model.backbone import EMBEDDED, find, load_tokenizer
from pipelines.tracking import model_table
from pipelines.tracking.store import connect
from pipelines.train import launch, rank_process
from pipelines.train.encoder import load_for_training
from pipelines.train.launch import fit_in_processes
from pipelines.train.loop import EpochRow, Fit, fit
from pipelines.train.rank_process import write_shards
from pipelines.train.ranks import Ranks
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import (
    LabelledRows,
    open_shards,
    predict_policy,
    tokenise_rows,
    tokenise_split,
)
from pipelines.train.training import train_model
from schemas import GOLD_REVIEWS
from tests.support.processes import LOOPBACK, descendants, listening, variable
from tests.support.small_gold import TRAIN, encoder_in, gold_rows
from tests.support.tiny_encoder import build
from tests.train.test_loop import SETTINGS, WORDS, reviews

TWO = dataclasses.replace(SETTINGS, processes=2, threads=2)
# Multiples neither of 2 nor of the batch size 8: the last batch has 1 row, so one rank has none.
N_TRAIN, N_VALID = 97, 33


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
                "review_id": [f"{split}{row:06d}" for row in range(n)],
                "text": texts,
                "label": labels,
                "split": [split] * n,
                "source": ["imdb"] * n,
                "n_characters": [1] * n,
                "n_tokens": [1] * n,
                "states_score": [False] * n,
            }
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return file


class Trained:
    """One training of the tiny backbone, in this process or in several, with all its callbacks."""

    def __init__(
        self,
        backbone: Path,
        snapshot: Path,
        settings: TrainSettings,
        after_step: Callable[[], None],
    ) -> None:
        self.model, tokenizer = load_for_training(
            backbone, settings.seed, settings.dropout, settings.max_tokens
        )
        self.steps: list[tuple[int, float, float]] = []
        self.epochs: list[EpochRow] = []

        def on_step(*step: Any) -> None:
            self.steps.append(step)
            after_step()

        def split(name: str) -> LabelledRows:
            rows = rows_of(open_snapshot(snapshot), name)
            return tokenise_split(rows, tokenizer, predict_policy(settings)).for_encoder

        self.fitted: Fit
        if settings.processes > 1:
            self.fitted = fit_in_processes(
                self.model,
                tokenizer,
                snapshot=snapshot,
                settings=settings,
                on_step=on_step,
                on_epoch=self.epochs.append,
            )
        else:
            self.fitted = fit(
                self.model,
                split("train"),
                validation=split("validation"),
                settings=settings,
                on_step=on_step,
                on_epoch=self.epochs.append,
            )

    @property
    def weights(self) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in self.model.state_dict().items()}


def do_nothing() -> None:
    pass


addresses: set[str] = set()


def note_addresses() -> None:
    for pid in descendants(os.getpid()):
        if variable(pid, "PET_LOCAL_ADDR"):
            addresses.update(listening(pid))


@pytest.fixture(scope="module")
def in_two(spark: SparkSession, backbone: Path, snapshot: Path) -> Trained:
    assert spark
    return Trained(backbone, snapshot, TWO, note_addresses)


@pytest.fixture(scope="module")
def in_one(backbone: Path, snapshot: Path) -> Trained:
    return Trained(backbone, snapshot, SETTINGS, do_nothing)


def test_two_processes_take_the_same_steps_as_one_up_to_rounding(
    in_two: Trained, in_one: Trained
) -> None:
    """A row that is lost, trained twice or weighted wrongly changes the first epoch's losses."""
    assert len(in_two.steps) == len(in_one.steps) == TWO.n_steps(N_TRAIN) == 4 * 13
    np.testing.assert_allclose(in_two.steps, in_one.steps, atol=1e-4)
    in_two_weights = in_two.model.state_dict()
    for name, value in in_one.model.state_dict().items():
        torch.testing.assert_close(in_two_weights[name], value, atol=2e-3, rtol=0, msg=name)


def test_two_processes_give_the_same_metrics_as_one(in_two: Trained, in_one: Trained) -> None:
    two = np.array([dataclasses.astuple(row) for row in in_two.epochs], dtype=float)
    one = np.array([dataclasses.astuple(row) for row in in_one.epochs], dtype=float)
    np.testing.assert_allclose(two, one, atol=1e-4)
    assert in_two.epochs == in_two.fitted.history
    assert in_two.fitted.best_epoch == in_one.fitted.best_epoch
    assert in_two.fitted.n_steps == in_one.fitted.n_steps
    np.testing.assert_allclose(in_two.fitted.valid_logits, in_one.fitted.valid_logits, atol=1e-3)


def test_the_returned_weights_are_those_of_the_returned_logits(
    in_two: Trained, backbone: Path, snapshot: Path
) -> None:
    policy = predict_policy(TWO)
    validation = rows_of(open_snapshot(snapshot), "validation")
    tokens, _ = tokenise_rows(validation, load_tokenizer(backbone), policy)
    logits = classifier.predict_logits(in_two.model, tokens, policy)
    np.testing.assert_allclose(logits, in_two.fitted.valid_logits, atol=1e-6)


def test_the_ranks_listen_on_loopback_only(in_two: Trained) -> None:
    assert in_two.steps
    assert addresses
    assert addresses <= set(LOOPBACK)


def test_no_file_is_left_beside_the_snapshot(in_two: Trained, snapshot: Path) -> None:
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
    """Relative paths of lake and backbone work too, although the ranks start elsewhere."""
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
    step_losses = client.get_metric_history(record.run_id, "step_loss")
    assert [metric.step for metric in step_losses] == list(range(1, n_steps + 1))
    assert len(client.get_metric_history(record.run_id, "valid_loss")) == 2

    capsys.readouterr()
    reproduce.main([record.run_id, "--lake", "lake"])
    lines = capsys.readouterr().out.splitlines()  # the ranks' output is not shown
    headings = {"run", "data", "differs", "warning", "result", "verdict"}
    assert {line.split()[0] for line in lines} <= headings
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
    words = r"^training in 2 processes: rank 1 was killed by signal 9 \(SIGKILL\), probably"
    with pytest.raises(SetupError, match=words):
        Trained(backbone, snapshot, long, kill_one)
    [(pid, killed_at)] = killed
    assert time.monotonic() - killed_at < 90
    assert not Path(f"/proc/{pid}").exists()
    assert [pid for pid in descendants(os.getpid()) if variable(pid, "RANK")] == []


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_an_error_of_a_rank_is_raised_with_its_message(backbone: Path, snapshot: Path) -> None:
    words = r"^--freeze-layers must be -3\.\.2 \(the backbone's layers\), got 9$"
    too_many_layers = dataclasses.replace(TWO, freeze_layers=9)
    with pytest.raises(InputError, match=words) as caught:
        Trained(backbone, snapshot, too_many_layers, do_nothing)
    assert program.exit_code(caught.value) == 2
    trace = "".join(traceback.format_exception(caught.value))
    assert "Root Cause" in trace  # torchrun's output, shown by --debug


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
        (None, "no output of torchrun", JobError, r"failed, and no rank reported an error\."),
    ],
    ids=["reported", "killed", "killed, and others after it", "exit code only", "unknown"],
)
def test_the_end_of_a_rank_is_one_line(
    tmp_path: Path, noted: dict[str, str] | None, output: str, kind: type[JobError], line: str
) -> None:
    if noted:
        (tmp_path / "fault-1.json").write_text(json.dumps(noted), encoding="utf-8")
    error = launch._fault(tmp_path, 2, output)
    assert type(error) is kind
    assert re.search(line, str(error))
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InputError("x"), "InputError"),
        (OSError("No space left on device"), "SetupError"),
        (OSError("x"), "JobError"),
    ],
)
def test_a_failed_rank_writes_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_process, "_train", fail)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *_, **__: None)
    params = {name: str(value) for name, value in cli.as_params(TWO).items()}
    before = torch.get_num_threads()
    with pytest.raises(type(error)):
        rank_process.train_rank("no snapshot", str(tmp_path), "", before, params)
    fault = json.loads((tmp_path / "fault-0.json").read_text(encoding="utf-8"))
    assert fault["kind"] == kind


def test_an_event_with_an_incomplete_line_is_passed_on_later(tmp_path: Path) -> None:
    steps: list[tuple[float, ...]] = []
    epochs: list[EpochRow] = []
    follower = launch._Follower(
        tmp_path / "events.jsonl", lambda *step: steps.append(step), epochs.append
    )
    row = EpochRow(1, 0.7, 0.6, 0.5, None, 0.0, 0.0)
    with (tmp_path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": [1, 0.5, 0.1]}\n{"st')
        file.flush()
        follower.write("any line\n")
        assert len(steps) == 1
        file.write('ep": [2, 0.4, 0.1]}\n')
        file.flush()
        follower.write("any line\n")
        assert len(steps) == 2
        file.write(json.dumps({"epoch": dataclasses.asdict(row)}) + "\n")
    follower.follow()
    assert (steps, epochs) == ([(1, 0.5, 0.1), (2, 0.4, 0.1)], [row])


@pytest.mark.parametrize("n", [1, 2, 3, 40])  # 40 = more ranks than validation rows
def test_a_rank_reads_only_its_own_texts_and_the_shards_together_are_the_split(
    tmp_path: Path, backbone: Path, n: int
) -> None:
    splits = {"train": reviews(N_TRAIN, 1), "validation": reviews(N_VALID, 2)}
    tokenizer = load_tokenizer(backbone)
    for rank in range(n):
        ranks = Ranks(rank, n)
        # The rows of other ranks are null, so the tokenizer raises if it reads one of them.
        own: dict[str, tuple[list[Any], NDArray[np.int64]]] = {}
        for split, (texts, labels) in splits.items():
            shard = ranks.shard_of(len(texts))
            own_texts: list[Any] = [None] * len(texts)
            own_texts[shard] = texts[shard]
            own[split] = (own_texts, labels)
        write_shards(
            open_snapshot(write(tmp_path / "gold.arrow", own)),
            tmp_path,
            tokenizer=tokenizer,
            settings=TWO,
            ranks=ranks,
        )
    for split, (texts, labels) in splits.items():
        whole = open_shards([tmp_path / f"{split}-{rank}" for rank in range(n)])
        rows = [whole.tokens[row].tolist() for row in range(len(whole.tokens))]
        expected = classifier.tokenise(tokenizer, texts, predict_policy(TWO)).token_ids
        assert rows == [token_ids.tolist() for token_ids in expected]
        assert whole.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("threads", "processes", "expected"), [(4, 2, 2), (5, 2, 2), (1, 2, 1), (8, 3, 2)]
)
def test_the_threads_are_divided_among_the_processes(
    threads: int, processes: int, expected: int
) -> None:
    settings = dataclasses.replace(SETTINGS, threads=threads, processes=processes)
    assert launch._threads_of_each(settings) == expected


@pytest.mark.stress
@pytest.mark.usefixtures("spark")
@pytest.mark.timeout(1_800)
def test_the_real_backbone_is_as_accurate_from_two_processes_as_from_one(
    tmp_path: Path,
) -> None:
    packaged = pd.read_csv(packaged_file()[0]).sample(1_000, random_state=1)
    texts = packaged["text"].tolist()
    labels = packaged["label"].to_numpy(np.int64)
    parts = {"train": slice(0, 600), "validation": slice(600, 800), "test": slice(800, 1_000)}
    splits = {split: (texts[rows], labels[rows]) for split, rows in parts.items()}
    file = write(tmp_path / "gold.arrow", splits)
    settings = TrainSettings(epochs=2, threads=2)
    one = train_model(file, find(EMBEDDED), settings)
    two = train_model(file, find(EMBEDDED), dataclasses.replace(settings, processes=2))
    for first, second in zip(one.fitted.history, two.fitted.history, strict=True):
        assert second.train_loss == pytest.approx(first.train_loss, abs=0.01)
        assert second.valid_loss == pytest.approx(first.valid_loss, abs=0.01)
        assert second.valid_accuracy == pytest.approx(first.valid_accuracy, abs=0.02)
    accuracies = [(run.test_predictions == run.test_labels).mean() for run in (one, two)]
    assert accuracies[0] > 0.75  # else there is nothing to compare
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)
    assert np.abs(one.test_probability - two.test_probability).mean() < 0.01

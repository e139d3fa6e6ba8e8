"""The training loop: settings, determinism, best epoch, learning rate, presets. Needs no Spark."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines import cli
from pipelines.errors import InputError, IntegrityError
from pipelines.model.classifier import predict_logits, tokenise
from pipelines.model.metrics import cross_entropy
from pipelines.train.encoder import load_for_training
from pipelines.train.loop import EpochRow, Fit, deterministic, fit, rate_share
from pipelines.train.settings import FREEZE_HALF, KEEP_DROPOUT, PRESETS, SEED_PRESET, TrainSettings
from pipelines.train.tokens import LabelledRows, predict_policy, train_policy
from tests.support.tiny_encoder import build

WORDS = ["good", "fine", "bad", "dull", "film", "plot", "the", "a"]
SETTINGS = TrainSettings(
    max_tokens=16,
    epochs=4,
    batch_size=8,
    learning_rate=1e-2,
    freeze_layers=-1,
    precision="fp32",
    threads=1,
    seed=3,
)


def reviews(n: int, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Texts whose last word is praise or blame, which decides the label; the others are neutral."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    verdicts = [WORDS[2:4], WORDS[:2]]
    texts: list[str] = []
    for label in labels:
        others = rng.choice(WORDS[4:], rng.integers(1, 9))
        texts.append(" ".join([*others, rng.choice(verdicts[label])]))
    return texts, labels


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("train"), WORDS)


class Trained:
    """One training of the tiny backbone, with the arguments of all callbacks."""

    def __init__(self, backbone: Path, settings: TrainSettings) -> None:
        self.model, tokenizer = load_for_training(
            backbone, settings.seed, settings.dropout, settings.max_tokens
        )
        self.before = {name: value.clone() for name, value in self.model.state_dict().items()}
        policy = predict_policy(settings)
        texts, labels = reviews(96, 1)
        valid_texts, valid_labels = reviews(32, 2)
        train = LabelledRows(tokenise(tokenizer, texts, policy).token_ids, labels)
        self.valid = LabelledRows(tokenise(tokenizer, valid_texts, policy).token_ids, valid_labels)
        self.steps: list[tuple[int, float, float]] = []
        self.epochs: list[EpochRow] = []
        self.fitted: Fit = fit(
            self.model,
            train,
            validation=self.valid,
            settings=settings,
            on_step=lambda *step: self.steps.append(step),
            on_epoch=self.epochs.append,
        )

    @property
    def weights(self) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in self.model.state_dict().items()}


@pytest.fixture(scope="module")
def trained(backbone: Path) -> Trained:
    return Trained(backbone, SETTINGS)


def test_training_learns_the_labels(trained: Trained) -> None:
    first, last = trained.epochs[0], trained.epochs[-1]
    assert last.train_loss < first.train_loss
    assert last.valid_accuracy == 1.0
    assert (last.valid_precision, last.valid_recall, last.valid_f1) == (1.0, 1.0, 1.0)


def test_two_runs_with_equal_seed_and_threads_give_equal_bits(
    trained: Trained, backbone: Path
) -> None:
    again = Trained(backbone, SETTINGS)
    assert again.weights == trained.weights
    assert again.fitted.history == trained.fitted.history


def test_dropout_depends_on_the_seed(backbone: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1, dropout=0.3)
    first = Trained(backbone, settings)
    second = Trained(backbone, settings)
    without_dropout = Trained(backbone, dataclasses.replace(settings, dropout=0.0))
    assert first.weights == second.weights
    assert first.weights != without_dropout.weights


def test_another_seed_gives_different_weights(trained: Trained, backbone: Path) -> None:
    assert Trained(backbone, dataclasses.replace(SETTINGS, seed=4)).weights != trained.weights


def test_every_step_and_epoch_is_reported_in_order(trained: Trained) -> None:
    assert [step for step, _, _ in trained.steps] == list(range(1, 4 * 12 + 1))
    assert trained.fitted.n_steps == len(trained.steps)
    assert trained.epochs == trained.fitted.history
    assert [row.epoch for row in trained.epochs] == [1, 2, 3, 4]
    losses = [loss for _, loss, _ in trained.steps[:12]]
    assert trained.epochs[0].train_loss == pytest.approx(np.mean(losses))


def test_an_epoch_has_the_columns_of_the_seeds_log() -> None:
    assert [field.name for field in dataclasses.fields(EpochRow)] == [
        "epoch",
        "train_loss",
        "valid_loss",
        "valid_accuracy",
        "valid_precision",
        "valid_recall",
        "valid_f1",
    ]


def test_the_best_epoch_is_restored_and_worse_epochs_stop_the_training(backbone: Path) -> None:
    """The learning rate is so high that the loss soon increases."""
    run = Trained(backbone, dataclasses.replace(SETTINGS, epochs=30, patience=2, learning_rate=0.1))
    losses = [row.valid_loss for row in run.epochs]
    best = int(np.argmin(losses)) + 1
    assert (run.fitted.best_epoch, len(losses)) == (best, best + 2)
    logits = predict_logits(run.model, run.valid.tokens, predict_policy(SETTINGS))
    assert cross_entropy(logits, run.valid.labels) == pytest.approx(min(losses), abs=1e-6)
    np.testing.assert_array_equal(logits, run.fitted.valid_logits)


@pytest.mark.parametrize(
    ("freeze_layers", "untouched"),
    [
        (-1, []),
        (0, ["embeddings"]),
        (1, ["embeddings", "layer.0"]),
        (2, ["embeddings", "layer.0", "layer.1"]),
    ],
)
def test_frozen_parts_do_not_change_and_the_others_do(
    backbone: Path, freeze_layers: int, untouched: list[str]
) -> None:
    run = Trained(backbone, dataclasses.replace(SETTINGS, epochs=1, freeze_layers=freeze_layers))
    moved = [
        name
        for name, value in run.model.state_dict().items()
        if not torch.equal(run.before[name], value)
    ]
    parts = ["embeddings", "layer.0", "layer.1", "classifier"]
    assert [part for part in parts if not any(part in name for name in moved)] == untouched


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step(backbone: Path) -> None:
    model, _ = load_for_training(backbone, seed=1)
    with torch.no_grad():
        model.classifier.bias.fill_(math.nan)
    rows = LabelledRows([np.array([2, 5, 3], dtype=np.int32)] * 2, np.array([0, 1]))
    with pytest.raises(
        IntegrityError, match=r"training step 1 \(epoch 1\): expected a finite loss, found nan"
    ):
        fit(model, rows, validation=rows, settings=SETTINGS)


@pytest.mark.parametrize(("n_tokens", "n_labels"), [(0, 0), (2, 1)])
def test_a_split_without_rows_or_labels_is_named(
    backbone: Path, n_tokens: int, n_labels: int
) -> None:
    model, _ = load_for_training(backbone, seed=1)
    row = np.array([2, 3], dtype=np.int32)
    labels = np.array([0, 1])
    train = LabelledRows([row] * 2, labels)
    incomplete = LabelledRows([row] * n_tokens, labels[:n_labels])
    with pytest.raises(
        InputError,
        match=f"validation split: .*1 row or more, found {n_labels} labels and {n_tokens} rows",
    ):
        fit(model, train, validation=incomplete, settings=SETTINGS)


def process_state() -> tuple[int, bool]:
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()


def fail_inside(settings: TrainSettings, seen: list[tuple[int, bool]]) -> None:
    with deterministic(settings):
        seen.append(process_state())
        raise KeyError("any")


def test_the_settings_of_the_process_are_restored_after_an_error() -> None:
    before = process_state()
    seen: list[tuple[int, bool]] = []
    with pytest.raises(KeyError, match="any"):
        fail_inside(dataclasses.replace(SETTINGS, threads=before[0] + 1), seen)
    assert seen == [(before[0] + 1, True)]
    assert process_state() == before


@pytest.mark.parametrize(
    ("step", "schedule", "expected"),
    [
        (0, "linear", 0.1),
        (9, "linear", 1.0),
        (10, "linear", 1.0),
        (55, "linear", 0.5),
        (99, "linear", 1 / 90),
        (0, "constant", 0.1),
        (99, "constant", 1.0),
    ],
)
def test_the_rate_rises_then_falls_or_stays(step: int, schedule: str, expected: float) -> None:
    share = rate_share(step, n_steps=100, warmup_share=0.1, schedule=schedule)
    assert share == pytest.approx(expected)


def test_without_warm_up_the_rate_starts_at_its_peak() -> None:
    shares = [rate_share(step, 2, warmup_share=0.0, schedule="linear") for step in (0, 1)]
    assert shares == [1.0, 0.5]


def test_the_reported_rate_follows_the_schedule(trained: Trained) -> None:
    shares = [rate_share(step, 48, warmup_share=0.1, schedule="linear") for step in range(48)]
    expected = [1e-2 * share for share in shares]
    assert [rate for _, _, rate in trained.steps] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--max-tokens", "1024"],
            r"--max-tokens must be 8\.\.512 \(the usual encoder's position limit\), got 1024",
        ),
        (["--head-share", "1.5"], r"--head-share must be 0\.\.1, got 1\.5"),
        (["--epochs", "0"], r"--epochs must be 1\.\.100, got 0"),
        (["--learning-rate", "nan"], r"--learning-rate must be a number, 1e-08\.\.1, got 'nan'"),
        (["--dropout", "1"], r"--dropout must be 0\.\.0\.9 or -1 \(the backbone's own\), got 1"),
        (["--processes", "0"], r"--processes must be 1\.\.1024, got 0"),
        (["--freeze-layers", "-4"], r"--freeze-layers must be -3\.\.100, got -4"),
    ],
)
def test_a_setting_out_of_range_is_named_by_its_flag(flags: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        cli.parse(TrainSettings, flags, None)


def test_the_seed_preset_has_the_settings_of_the_seed_project() -> None:
    seed = SEED_PRESET
    assert seed.backbone == "prajjwal1/bert-tiny"
    assert (seed.max_tokens, seed.head_share, seed.batch_size) == (128, 1.0, 64)
    assert (seed.epochs, seed.patience, seed.learning_rate) == (10, 10, 2e-5)
    shares = {
        rate_share(step, 100, warmup_share=seed.warmup_share, schedule=seed.schedule)
        for step in range(100)
    }
    assert shares == {1.0}
    assert (seed.dropout, seed.freeze_layers, seed.precision) == (KEEP_DROPOUT, -1, "fp32")


def test_the_policy_follows_the_settings() -> None:
    policy = predict_policy(dataclasses.replace(SETTINGS, head_share=0.5))
    assert (policy.max_tokens, policy.head_share, policy.precision) == (16, 0.5, "fp32")


@pytest.mark.parametrize(
    ("max_tokens", "score_tokens", "expected"), [(96, 128, 128), (256, 128, 256), (64, 0, 64)]
)
def test_prediction_reads_at_least_as_many_tokens_as_training(
    max_tokens: int, score_tokens: int, expected: int
) -> None:
    settings = dataclasses.replace(SETTINGS, max_tokens=max_tokens, score_tokens=score_tokens)
    assert train_policy(settings).max_tokens == max_tokens
    assert predict_policy(settings).max_tokens == expected


def test_the_best_preset_trains_and_predicts_on_more_tokens() -> None:
    best = PRESETS["best"]
    assert (best.max_tokens, best.score_tokens) == (192, 256)
    others_by_default = dataclasses.replace(
        best,
        max_tokens=96,
        score_tokens=0,
        freeze_layers=FREEZE_HALF,
        learning_rate=3e-4,
    )
    assert others_by_default == TrainSettings()

"""Training: settings, length-grouped batches, the loop. Arrays in, weights and history out; no files, no tracking."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.cli import flag
from pipelines.errors import InputError, IntegrityError
from pipelines.model.backbone import EMBEDDED, FREEZE_HALF, KEEP_DROPOUT, freeze, refuse_pooling
from pipelines.model.classifier import (
    Policy,
    Rows,
    autocast,
    best_device,
    forward,
    pad,
    predict_logits,
    use_attention,
    uses_bf16,
)
from pipelines.model.metrics import confusion_of, cross_entropy, point_metrics
from pipelines.train.optimizer import optimizer_of
from pipelines.train.ranks import ALONE, Ranks, epoch_batches

MAX_GRADIENT_NORM = 1.0
TRAIN_ATTENTION = "eager"  # on short rows faster than the fused one, whose backward pass recomputes
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA's first product: deterministic ones want it
OnStep = Callable[[int, float, float], None]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that changes the weights, apart from the rows. The defaults: DECISIONS.md."""

    backbone: str = flag(f"{EMBEDDED} (packaged), a directory, or a model of the hub", EMBEDDED)
    max_tokens: int = flag("tokens of a review that the encoder learns from, specials included", 96)
    score_tokens: int = flag("tokens that it predicts from; never fewer than --max-tokens", 0)
    head_share: float = flag("share of the kept tokens taken from the review's head, the rest from its tail", 0.25)
    epochs: int = flag("most passes over the training rows", 1)
    batch_size: int = flag("reviews per step", 32)
    learning_rate: float = flag("peak rate of AdamW", 3e-4)
    weight_decay: float = flag("decay of AdamW", 0.01)
    lexical: bool = flag("add a linear model over all of a review's tokens, those too that are cut away", True)
    pairs: int = flag("buckets that it hashes pairs of neighbouring tokens to; 0 = tokens alone", 2**20)
    pooling: str = flag("mean of the tokens' states, or the architecture's own ([CLS])", "mean", ("mean", "own"))
    schedule: str = flag("rate after the warm-up", "linear", ("linear", "constant"))
    warmup_share: float = flag("share of all steps in which the rate climbs to its peak", 0.1)
    freeze_layers: int = flag(
        "what is not trained: -1 nothing, 0 embeddings, n these and the first n layers, -2 a third of them, -3 half",
        FREEZE_HALF,
    )
    dropout: float = flag("dropout of every layer; -1 = the backbone's own", 0.0)
    patience: int = flag("epochs without a lower validation loss after which training stops", 2)
    seed: int = flag("seed of the head, the batches and dropout", 42)
    precision: str = flag(
        "auto = bf16 where it is measured to be clearly faster", "auto", choices=("auto", "fp32", "bf16")
    )
    threads: int = flag("CPU threads, 0 = torch's choice; weights are bit-identical only at equal counts", 0)
    processes: int = flag("processes that share each batch and the threads; more than 1: by TorchDistributor", 1)

    def __post_init__(self) -> None:
        _require("max_tokens", self.max_tokens, 8, 512, " (the usual encoder's position limit)")
        _require("score_tokens", self.score_tokens, 0, 512)
        _require("head_share", self.head_share, 0.0, 1.0)
        _require("epochs", self.epochs, 1, 100)
        _require("batch_size", self.batch_size, 1, 4_096)
        _require("learning_rate", self.learning_rate, 1e-8, 1.0)
        _require("weight_decay", self.weight_decay, 0.0, 1.0)
        _require("pairs", self.pairs, 0, 2**26)
        _require("warmup_share", self.warmup_share, 0.0, 1.0)
        _require("freeze_layers", self.freeze_layers, FREEZE_HALF, 100)
        _require("patience", self.patience, 1, 100)
        _require("seed", self.seed, 0, 2**32 - 1)
        _require("threads", self.threads, 0, 1_024)
        _require("processes", self.processes, 1, 1_024)
        if self.dropout != KEEP_DROPOUT:
            _require("dropout", self.dropout, 0.0, 0.9, " or -1 (the backbone's own)")

    @property
    def policy(self) -> Policy:
        """How the model turns text into tokens when it predicts: its own policy from then on."""
        return replace(self.train_policy, max_tokens=max(self.score_tokens, self.max_tokens))

    @property
    def train_policy(self) -> Policy:
        """The same while it learns: fewer tokens cost less."""
        return Policy(self.max_tokens, self.head_share, precision=self.precision, pooling=self.pooling)

    def n_steps(self, n_rows: int) -> int:
        """Steps that all epochs over so many rows take."""
        return math.ceil(n_rows / self.batch_size) * self.epochs


@dataclass(frozen=True)
class EpochRow:
    """One epoch's figures; None where undefined, as the precision of a model that calls nothing positive."""

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float | None
    valid_precision: float | None
    valid_recall: float | None
    valid_f1: float | None


@dataclass(frozen=True)
class Fit:
    """What training gave. The model passed in holds the best epoch's weights."""

    history: list[EpochRow]
    best_epoch: int
    valid_logits: NDArray[np.float32]
    n_steps: int


def fit(
    model: Any,
    train: Rows,
    train_labels: NDArray[np.int64],
    valid: Rows,
    valid_labels: NDArray[np.int64],
    settings: TrainSettings,
    on_step: OnStep = lambda *_: None,
    on_epoch: Callable[[EpochRow], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Fit:
    """Train in place, keep the epoch of lowest validation loss. Equal seed and threads give bit-identical weights.

    on_step gets the step from 1, its loss and its rate; on_epoch the row that the history gets. The batches are the
    same however many ranks share them; each ends with the same weights.
    """
    require_rows({"train": train, "validation": valid}, {"train": train_labels, "validation": valid_labels})
    lengths = np.array([len(train[row]) for row in range(len(train))], dtype=np.int64)
    n_steps = settings.n_steps(len(train))
    history: list[EpochRow] = []
    best_state: dict[str, torch.Tensor] = {}
    best_epoch, best_logits, best_loss = 0, np.empty((0, 2), np.float32), math.inf
    model.to(best_device())
    is_bf16 = ranks.agreed(uses_bf16(model.device, settings.precision))
    settings = replace(settings, precision="bf16" if is_bf16 else "fp32")
    refuse_pooling(model, settings.pooling)
    freeze(model, settings.freeze_layers)
    with deterministic(settings, ranks.rank), tqdm(total=n_steps, desc="train", unit=" steps") as bar:
        optimizer, scheduler = optimizer_of(
            model, n_steps, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
            warmup_share=settings.warmup_share, schedule=settings.schedule,
        )  # fmt: skip
        for epoch in range(1, settings.epochs + 1):
            losses = 0.0
            model.train()
            use_attention(model, TRAIN_ATTENTION)
            for rows in epoch_batches(lengths, settings.batch_size, settings.seed, epoch):
                rate = scheduler.get_last_lr()[0]
                loss = _step(model, train, train_labels, rows, optimizer, settings, ranks)
                scheduler.step()
                bar.update()
                if not math.isfinite(loss):
                    raise IntegrityError(
                        f"training step {bar.n} (epoch {epoch}): expected a finite loss, found {loss}. "
                        "Lower --learning-rate, or use --precision fp32."
                    )
                losses += loss * len(rows)
                on_step(int(bar.n), loss, rate)
            logits = ranks.gathered(predicted(model, ranks.own(valid), settings, "validate"), len(valid))
            history.append(_epoch_row(epoch, losses / len(train), logits, valid_labels))
            on_epoch(history[-1])
            if history[-1].valid_loss < best_loss:
                best_epoch, best_logits, best_loss = epoch, logits, history[-1].valid_loss
                best_state = {name: value.detach().clone() for name, value in model.state_dict().items()}
            if epoch - best_epoch >= settings.patience:
                break
    if not best_state:
        raise IntegrityError("training: expected a finite validation loss, found none. Lower --learning-rate.")
    model.load_state_dict(best_state)
    model.eval()
    return Fit(history, best_epoch, best_logits, int(bar.n))


@contextmanager
def deterministic(settings: TrainSettings, rank: int = 0) -> Iterator[None]:
    """Seeds (a rank's own, for dropout), threads, deterministic algorithms while training; then what stood before."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.manual_seed(settings.seed + rank)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads or before[1])
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


def _step(
    model: Any, train: Rows, labels: NDArray[np.int64], batch: NDArray[np.int64], optimizer: Any,
    settings: TrainSettings, ranks: Ranks,
) -> float:  # fmt: skip
    """One step on one batch; returns its loss, which is checked before the next."""
    rows, share = ranks.part_of(batch)
    ids, mask = pad(train, rows, model.config.pad_token_id or 0)
    with autocast(model.device, settings.precision):
        logits = forward(model, ids, mask, settings.pooling)
    loss = share * torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels[rows]).to(model.device))
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    whole_loss = ranks.summed(model, loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return whole_loss


def _epoch_row(epoch: int, train_loss: float, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> EpochRow:
    figures = point_metrics(confusion_of(labels, logits.argmax(axis=1)))
    return EpochRow(
        epoch, train_loss, cross_entropy(logits, labels),
        figures["accuracy"], figures["precision"], figures["recall"], figures["f1"],
    )  # fmt: skip


def predicted(model: Any, rows: Rows, settings: TrainSettings, title: str) -> NDArray[np.float32]:
    """Logits of a split, with a progress bar where it takes more than a few seconds."""
    progress = partial(tqdm, desc=title, unit=" batches", delay=3, mininterval=1.0, leave=False)
    return predict_logits(model, rows, settings.policy, progress=progress)


def _require(name: str, value: float, low: float, high: float, why: str = "") -> None:
    if not low <= value <= high:
        raise ValueError(f"--{name.replace('_', '-')} must be {low:g}..{high:g}{why}, got {value:g}")


def require_rows(tokens: Mapping[str, Rows], labels: Mapping[str, NDArray[np.int64]]) -> None:
    """Raise InputError for a split that is empty, or has not a label a row."""
    for split, rows in tokens.items():
        if len(rows) == 0 or len(rows) != len(labels[split]):
            found = f"{len(labels[split])} and {len(rows)}"
            raise InputError(
                f"{split} split: expected as many labels as token rows, at least 1; found {found}. "
                "Ingest more labelled reviews, or choose another --split-policy."
            )

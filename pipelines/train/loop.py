"""Training: settings, length-grouped batches, the loop. Arrays in, weights and history out; no files, no tracking."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.errors import InputError, IntegrityError
from pipelines.model.classifier import (
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
from pipelines.train.encoder import freeze, refuse_pooling
from pipelines.train.ranks import ALONE, Ranks, epoch_batches
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import predict_policy

MAX_GRADIENT_NORM = 1.0
TRAIN_ATTENTION = "eager"  # on short rows faster than the fused one, whose backward pass recomputes
OnStep = Callable[[int, float, float], None]


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
    require_rows(
        {"train": train, "validation": valid}, {"train": train_labels, "validation": valid_labels}
    )
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
    with (
        deterministic(settings, ranks.rank),
        tqdm(total=n_steps, desc="train", unit=" steps") as bar,
    ):
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
            logits = ranks.gathered(
                predicted(model, ranks.own(valid), settings, "validate"), len(valid)
            )
            history.append(_epoch_row(epoch, losses / len(train), logits, valid_labels))
            on_epoch(history[-1])
            if history[-1].valid_loss < best_loss:
                best_epoch, best_logits, best_loss = epoch, logits, history[-1].valid_loss
                best_state = {
                    name: value.detach().clone() for name, value in model.state_dict().items()
                }
            if epoch - best_epoch >= settings.patience:
                break
    if not best_state:
        raise IntegrityError(
            "training: expected a finite validation loss, found none. Lower --learning-rate."
        )
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
    loss = share * torch.nn.functional.cross_entropy(
        logits.float(), torch.from_numpy(labels[rows]).to(model.device)
    )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    whole_loss = ranks.summed(model, loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return whole_loss


def _epoch_row(
    epoch: int, train_loss: float, logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> EpochRow:
    figures = point_metrics(confusion_of(labels, logits.argmax(axis=1)))
    return EpochRow(
        epoch, train_loss, cross_entropy(logits, labels),
        figures["accuracy"], figures["precision"], figures["recall"], figures["f1"],
    )  # fmt: skip


def predicted(model: Any, rows: Rows, settings: TrainSettings, title: str) -> NDArray[np.float32]:
    """Logits of a split, with a progress bar where it takes more than a few seconds."""
    progress = partial(tqdm, desc=title, unit=" batches", delay=3, mininterval=1.0, leave=False)
    return predict_logits(model, rows, predict_policy(settings), progress=progress)


def require_rows(tokens: Mapping[str, Rows], labels: Mapping[str, NDArray[np.int64]]) -> None:
    """Raise InputError for a split that is empty, or has not a label a row."""
    for split, rows in tokens.items():
        if len(rows) == 0 or len(rows) != len(labels[split]):
            found = f"{len(labels[split])} and {len(rows)}"
            raise InputError(
                f"{split} split: expected as many labels as token rows, at least 1; found {found}. "
                "Ingest more labelled reviews, or choose another --split-policy."
            )


def optimizer_of(
    model: Any,
    n_steps: int,
    *,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    schedule: str,
) -> tuple[Any, Any]:
    """AdamW over what is trained, and the schedule of its rate, a step a batch."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, learning_rate, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_share(step, n_steps, warmup_share, schedule)
    )
    return optimizer, scheduler


def rate_share(step: int, n_steps: int, warmup_share: float, schedule: str) -> float:
    """Share of the peak rate in a step counted from 0: up in a line, then level, or down in a line towards 0."""
    n_warmup = round(n_steps * warmup_share)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 1.0 if schedule == "constant" else (n_steps - step) / max(1, n_steps - n_warmup)

"""The training loop: arrays in, weights and metrics out. It touches no files and no MLflow."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.errors import IntegrityError
from pipelines.model.classifier import (
    Rows,
    autocast,
    forward,
    pad,
    predict_logits,
    use_attention,
    uses_bf16,
)
from pipelines.model.metrics import confusion_of, cross_entropy, point_metrics
from pipelines.train.device import training_device
from pipelines.train.encoder import freeze, refuse_pooling
from pipelines.train.ranks import ALONE, Ranks, epoch_batches
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import LabelledRows, predict_policy, require_rows

MAX_GRADIENT_NORM = 1.0
# Faster on short rows than the fused kernel, whose backward pass computes the attention again.
TRAIN_ATTENTION = "eager"


@dataclass(frozen=True)
class EpochRow:
    """Metrics of one epoch.

    None if undefined, such as the precision of a model that predicts no row positive.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float | None
    valid_precision: float | None
    valid_recall: float | None
    valid_f1: float | None


OnStep = Callable[[int, float, float], None]  # the step's number from 1, its loss, its rate
OnEpoch = Callable[[EpochRow], None]


@dataclass(frozen=True)
class Fit:
    """Result of a training. The weights of the best epoch are in the model that was passed in."""

    history: list[EpochRow]
    best_epoch: int
    valid_logits: NDArray[np.float32]  # (N, 2) of the best epoch
    n_steps: int


@dataclass(frozen=True)
class _Best:
    """The epoch with the lowest validation loss so far."""

    epoch: int
    valid_loss: float
    valid_logits: NDArray[np.float32]  # (N, 2)
    weights: Mapping[str, torch.Tensor]


NO_EPOCH = _Best(
    epoch=0, valid_loss=math.inf, valid_logits=np.empty((0, 2), np.float32), weights={}
)


def fit(
    model: Any,
    train: LabelledRows,
    *,
    validation: LabelledRows,
    settings: TrainSettings,
    on_step: OnStep = lambda *_: None,
    on_epoch: OnEpoch = lambda _: None,
    ranks: Ranks = ALONE,
) -> Fit:
    """Train the model in place and keep the weights of the epoch with the lowest validation loss.

    Equal seed and threads give bit-identical weights. The batches do not depend on the number of
    ranks, and all ranks end with the same weights.
    on_step   called after each step with its number, from 1, its loss and its learning rate
    on_epoch  called after each epoch with its metrics
    """
    require_rows("train", train)
    require_rows("validation", validation)
    model.to(training_device(settings.device))
    is_bf16 = ranks.agreed(uses_bf16(model.device, settings.precision))
    settings = replace(settings, precision="bf16" if is_bf16 else "fp32")
    refuse_pooling(model, settings.pooling)
    freeze(model, settings.freeze_layers)
    n_rows = len(train.tokens)
    lengths = np.array([len(train.tokens[row]) for row in range(n_rows)], dtype=np.int64)  # (N,)
    history: list[EpochRow] = []
    best = NO_EPOCH
    with (
        deterministic(settings, ranks.rank),
        tqdm(total=settings.n_steps(n_rows), desc="train", unit=" steps") as bar,
    ):
        stepper = _stepper_of(model, train, settings=settings, ranks=ranks)
        for epoch in range(1, settings.epochs + 1):
            batches = epoch_batches(lengths, settings.batch_size, seed=settings.seed, epoch=epoch)
            train_loss = _train_epoch(stepper, batches, epoch=epoch, bar=bar, on_step=on_step)
            own_rows = ranks.own(validation.tokens)
            own_logits = predicted(model, own_rows, settings=settings, title="validate")
            logits = ranks.gathered(own_logits, len(validation.tokens))
            row = _epoch_row(epoch, train_loss, logits=logits, labels=validation.labels)
            history.append(row)
            on_epoch(row)
            if row.valid_loss < best.valid_loss:
                best = _Best(
                    epoch=epoch,
                    valid_loss=row.valid_loss,
                    valid_logits=logits,
                    weights=_copied_weights(model),
                )
            if epoch - best.epoch >= settings.patience:
                break
    if best is NO_EPOCH:
        raise IntegrityError(
            "training: no epoch has a finite validation loss. Lower --learning-rate."
        )
    model.load_state_dict(best.weights)
    model.eval()
    return Fit(
        history=history,
        best_epoch=best.epoch,
        valid_logits=best.valid_logits,
        n_steps=int(bar.n),
    )


@contextmanager
def deterministic(settings: TrainSettings, rank: int = 0) -> Iterator[None]:
    """Set seed, threads and deterministic algorithms, then restore the latter two.

    Each rank has a seed of its own, for dropout.
    """
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    n_threads = torch.get_num_threads()
    torch.manual_seed(settings.seed + rank)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads or n_threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        torch.set_num_threads(n_threads)


@dataclass(frozen=True, kw_only=True)
class _Stepper:
    """The state that training steps share."""

    model: Any
    train: LabelledRows
    optimizer: Any
    scheduler: Any
    settings: TrainSettings
    ranks: Ranks

    def step(self, batch: NDArray[np.int64]) -> float:
        """Train on one batch, which all ranks share; returns the loss of the whole batch."""
        rows, share = self.ranks.part_of(batch)
        ids, mask = pad(self.train.tokens, rows, self.model.config.pad_token_id or 0)
        labels = torch.from_numpy(self.train.labels[rows])
        with autocast(self.model.device, self.settings.precision):
            logits = forward(self.model, ids, mask, pooling=self.settings.pooling)
        loss = share * torch.nn.functional.cross_entropy(
            logits.float(), labels.to(self.model.device)
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type hints here
        whole_loss = self.ranks.summed(self.model, loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.scheduler.step()
        return whole_loss


def _train_epoch(
    stepper: _Stepper,
    batches: Sequence[NDArray[np.int64]],
    *,
    epoch: int,
    bar: Any,
    on_step: OnStep,
) -> float:
    """Train on each batch once; returns the mean loss of the epoch's rows."""
    loss_sum = 0.0
    stepper.model.train()
    use_attention(stepper.model, TRAIN_ATTENTION)
    for rows in batches:
        rate = stepper.scheduler.get_last_lr()[0]
        loss = stepper.step(rows)
        bar.update()
        if not math.isfinite(loss):
            raise IntegrityError(
                f"training step {bar.n} (epoch {epoch}): expected a finite loss, found {loss}. "
                "Lower --learning-rate, or use --precision fp32."
            )
        loss_sum += loss * len(rows)
        on_step(int(bar.n), loss, rate)
    return loss_sum / sum(len(rows) for rows in batches)


def _copied_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _epoch_row(
    epoch: int, train_loss: float, *, logits: NDArray[np.float32], labels: NDArray[np.int64]
) -> EpochRow:
    metrics = point_metrics(confusion_of(labels, logits.argmax(axis=1)))
    return EpochRow(
        epoch=epoch,
        train_loss=train_loss,
        valid_loss=cross_entropy(logits, labels),
        valid_accuracy=metrics["accuracy"],
        valid_precision=metrics["precision"],
        valid_recall=metrics["recall"],
        valid_f1=metrics["f1"],
    )


def predicted(
    model: Any, rows: Rows, *, settings: TrainSettings, title: str
) -> NDArray[np.float32]:
    """Return the logits of a split, (N, 2), with a progress bar if it takes more than 3 seconds."""
    progress = partial(tqdm, desc=title, unit=" batches", delay=3, mininterval=1.0, leave=False)
    return predict_logits(model, rows, predict_policy(settings), progress=progress)


def _stepper_of(
    model: Any, train: LabelledRows, *, settings: TrainSettings, ranks: Ranks
) -> _Stepper:
    """Create AdamW for all parameters that are not frozen, and its learning-rate schedule."""
    n_steps = settings.n_steps(len(train.tokens))
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )

    def share(step: int) -> float:
        return rate_share(
            step,
            n_steps,
            warmup_share=settings.warmup_share,
            schedule=settings.schedule,
        )

    return _Stepper(
        model=model,
        train=train,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, share),
        settings=settings,
        ranks=ranks,
    )


def rate_share(step: int, n_steps: int, *, warmup_share: float, schedule: str) -> float:
    """Return the share of the peak learning rate for a step, counted from 0.

    It rises linearly in the warm-up, then stays at 1 or falls linearly towards 0.
    """
    n_warmup = round(n_steps * warmup_share)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 1.0 if schedule == "constant" else (n_steps - step) / max(1, n_steps - n_warmup)

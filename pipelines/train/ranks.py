"""How the rows of an epoch are shared out: in batches, and each batch among the processes that train one model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from pipelines.errors import IntegrityError
from pipelines.model.classifier import LABELS, Rows

MEGA_BATCH = 50  # batches that are sorted by length together: enough to waste little padding, few enough to stay random


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Every row once, in shuffled batches of similar length; the same for the same seed and epoch."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    groups = _slices(order, batch_size * MEGA_BATCH)
    sorted_groups = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    batches = _slices(np.concatenate(sorted_groups), batch_size)
    return [batches[number] for number in rng.permutation(len(batches))]


def _slices(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model, and which of them this is. Alone it is the whole, and sends nothing."""

    rank: int = 0
    n: int = 1

    def part_of(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """This rank's rows of a batch, every n-th, and their share of it, so that the shares of all ranks add up to 1.

        A batch is sorted by length, so the parts cost about the same. A batch with fewer rows than ranks leaves some
        without: they take its first row at a share of 0, so that all have gradients of the same shape to add.
        """
        rows = batch[self.rank :: self.n]
        if len(rows) == 0:
            return batch[:1], 0.0
        return rows, len(rows) / len(batch)

    def shard_of(self, n_rows: int) -> slice:
        """The rows of a split that this rank reads: contiguous, so that it touches no other page of the file."""
        return slice(n_rows * self.rank // self.n, n_rows * (self.rank + 1) // self.n)

    def own(self, rows: Rows) -> Rows:
        """This rank's shard of a split's token rows."""
        if self.n == 1:
            return rows
        shard = self.shard_of(len(rows))
        return [rows[row] for row in range(shard.start, shard.stop)]

    def summed(self, model: Any, loss: torch.Tensor) -> float:
        """Replace every gradient by its sum over the ranks; returns the sum of the losses. One message carries all."""
        if self.n == 1:
            return float(loss.detach())
        parameters = [part for part in model.parameters() if part.grad is not None]
        gradients = [parameter.grad for parameter in parameters]
        flattened = [gradient.flatten() for gradient in gradients]
        flat = torch.cat([*flattened, loss.detach().float().flatten()])  # every gradient, the loss
        distributed.all_reduce(flat)
        parts = torch.split(flat[:-1], [len(gradient) for gradient in flattened])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return float(flat[-1])

    def gathered(self, logits: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
        """The logits of all rows, on every rank, from those of each one's shard."""
        if self.n == 1:
            return logits
        whole = torch.zeros(n_rows, len(LABELS))  # (n_rows, 2)
        whole[self.shard_of(n_rows)] = torch.from_numpy(logits)
        distributed.all_reduce(whole)  # adding zeros changes no bit
        return whole.numpy()

    def agreed(self, answer: bool) -> bool:
        """Rank 0's answer, on every rank: what each measures for itself may differ."""
        if self.n == 1:
            return answer
        agreed = torch.tensor([int(answer)])
        distributed.broadcast(agreed, 0)
        return bool(agreed.item())

    def require_equal_weights(self, model: Any) -> None:
        """Raise IntegrityError unless the model has the same bits in every rank."""
        digest = hashlib.sha256()
        for value in model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        own = torch.tensor([int(digest.hexdigest()[:15], 16)])  # 60 bits: what an int64 holds
        low = own.clone()
        high = own.clone()
        distributed.all_reduce(low, distributed.ReduceOp.MIN)
        distributed.all_reduce(high, distributed.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise IntegrityError(
                f"training in {self.n} processes: expected the same weights in all of them, found different ones. "
                "Their processors differ: train on machines of one kind, or in one process."
            )


ALONE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """The rank that torchrun made this process."""
    return Ranks(rank=int(environment["RANK"]), n=int(environment["WORLD_SIZE"]))

"""Division of an epoch's rows into batches, and of each batch among the training processes.

A rank is one of the processes that train a model together, or its number.
"""

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

# Batches sorted by length together: many enough to waste little padding, few enough to stay random.
MEGA_BATCH = 50


def epoch_batches(
    lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Divide all rows into shuffled batches of similar length.

    Equal seed and epoch give equal batches.
    """
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
    """This process's rank among the n that train one model. A single process sends no messages."""

    rank: int = 0
    n: int = 1

    def part_of(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """Return this rank's rows of a batch, every n-th, and their share of the batch's rows.

        The shares of all ranks add up to 1. Batches are sorted by length, so all parts cost about
        the same. If a batch has fewer rows than ranks, the ranks without a row take the first one
        with a share of 0, since every rank needs gradients of the same shape.
        """
        rows = batch[self.rank :: self.n]
        if len(rows) == 0:
            return batch[:1], 0.0
        return rows, len(rows) / len(batch)

    def shard_of(self, n_rows: int) -> slice:
        """Return the rows of a split that this rank reads: contiguous, as they are in the file."""
        return slice(n_rows * self.rank // self.n, n_rows * (self.rank + 1) // self.n)

    def own(self, rows: Rows) -> Rows:
        """Return this rank's shard of a split's token rows."""
        if self.n == 1:
            return rows
        shard = self.shard_of(len(rows))
        return [rows[row] for row in range(shard.start, shard.stop)]

    def summed(self, model: Any, loss: torch.Tensor) -> float:
        """Replace each gradient by its sum over the ranks, in one message; returns the loss sum."""
        if self.n == 1:
            return float(loss.detach())
        parameters = [part for part in model.parameters() if part.grad is not None]
        gradients = [parameter.grad for parameter in parameters]
        flattened = [gradient.flatten() for gradient in gradients]
        flat_loss = loss.detach().float().flatten()  # (1,)
        flat = torch.cat([*flattened, flat_loss])
        distributed.all_reduce(flat)
        parts = torch.split(flat[:-1], [len(gradient) for gradient in flattened])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return float(flat[-1])

    def gathered(self, logits: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
        """Return the logits of all rows, (n_rows, 2), on every rank, from those of the shards."""
        if self.n == 1:
            return logits
        whole = torch.zeros(n_rows, len(LABELS))  # (n_rows, 2)
        whole[self.shard_of(n_rows)] = torch.from_numpy(logits)
        distributed.all_reduce(whole)  # adding zeros is exact
        return whole.numpy()

    def agreed(self, answer: bool) -> bool:
        """Return rank 0's answer on every rank, since their own measurements may differ."""
        if self.n == 1:
            return answer
        agreed = torch.tensor([int(answer)])
        distributed.broadcast(agreed, 0)
        return bool(agreed.item())

    def require_equal_weights(self, model: Any) -> None:
        """Raise IntegrityError if the weights are not bit-identical on all ranks."""
        digest = hashlib.sha256()
        for value in model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
        own = torch.tensor([int(digest.hexdigest()[:15], 16)])  # 60 bits, so that int64 can hold it
        low = own.clone()
        high = own.clone()
        distributed.all_reduce(low, distributed.ReduceOp.MIN)
        distributed.all_reduce(high, distributed.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise IntegrityError(
                f"training in {self.n} processes: their weights differ, since their processors "
                "differ. Train on machines of one kind, or in one process."
            )


ALONE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Read this process's rank from the environment that torchrun sets."""
    return Ranks(rank=int(environment["RANK"]), n=int(environment["WORLD_SIZE"]))

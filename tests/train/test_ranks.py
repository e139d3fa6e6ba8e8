"""Every row is trained on once per epoch, whatever the number of processes. Needs no Spark."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train.ranks import ALONE, Ranks, epoch_batches, ranks_of


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 40), st.integers(1, 5)
)
def test_an_epoch_contains_every_row_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    batches = epoch_batches(np.array(lengths, dtype=np.int64), batch_size, seed=1, epoch=epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / batch_size)


def test_equal_seed_and_epoch_give_equal_batches_and_another_epoch_others() -> None:
    def batches(epoch: int) -> list[list[int]]:
        return [
            batch.tolist() for batch in epoch_batches(np.arange(1, 101), 8, seed=1, epoch=epoch)
        ]

    assert batches(1) == batches(1)
    assert batches(1) != batches(2)


def test_batches_of_similar_length_waste_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 129, 4_000)
    padded = sum(
        len(rows) * lengths[rows].max() for rows in epoch_batches(lengths, 32, seed=1, epoch=1)
    )
    assert padded < 1.05 * lengths.sum()  # random batches: 1.9 times


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 40), st.integers(1, 7)
)
def test_all_ranks_together_take_every_row_once_per_epoch(
    lengths: list[int], batch_size: int, n: int
) -> None:
    taken: list[int] = []
    for batch in epoch_batches(np.array(lengths, dtype=np.int64), batch_size, seed=1, epoch=1):
        parts = [Ranks(rank, n).part_of(batch) for rank in range(n)]
        taken += [row for rows, share in parts if share for row in rows.tolist()]
        assert sum(share for _, share in parts) == pytest.approx(1.0)
        # A rank with a share of 0 has a row too, for a gradient of the right shape.
        assert all(len(rows) for rows, _ in parts)
    assert sorted(taken) == list(range(len(lengths)))


def test_the_parts_of_a_batch_are_of_similar_length() -> None:
    """Ranks wait for each other in every step, so the most expensive part determines the time."""
    lengths = np.random.default_rng(0).integers(1, 129, 4_000)
    batches = epoch_batches(lengths, 32, seed=1, epoch=1)
    most_expensive = 0
    for batch in batches:
        parts = [Ranks(rank, 4).part_of(batch)[0] for rank in range(4)]
        most_expensive += max(len(rows) * lengths[rows].max() for rows in parts)
    assert most_expensive < 1.05 * lengths.sum() / 4


@given(st.integers(0, 50), st.integers(1, 9))
def test_shards_are_contiguous_and_contain_every_row_once(n_rows: int, n: int) -> None:
    rows = list(range(n_rows))
    shards = [rows[Ranks(rank, n).shard_of(n_rows)] for rank in range(n)]
    assert [row for shard in shards for row in shard] == rows
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_rank_is_read_from_the_environment_and_a_single_one_has_all_rows() -> None:
    assert ranks_of({"RANK": "1", "WORLD_SIZE": "3"}) == Ranks(1, 3)
    rows, share = ALONE.part_of(np.arange(5))
    assert (rows.tolist(), share, ALONE.shard_of(5)) == ([0, 1, 2, 3, 4], 1.0, slice(0, 5))

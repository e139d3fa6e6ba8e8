"""Reviews as token ids: flat arrays in memory, and shards of them on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from pipelines.model.classifier import Policy, tokenise
from pipelines.train.settings import TrainSettings

CHUNK_ROWS = 2_000  # reviews tokenised at a time: about 3 MB of text


@dataclass(frozen=True)
class Tokens:
    """Token ids of many reviews in one flat array: row i is flat[offsets[i]:offsets[i + 1]]."""

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each review, special tokens included."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Shards:
    """The token rows of a split from several files, one after another: row i of the split is row i here."""

    parts: Sequence[Tokens]
    ends: NDArray[np.int64]  # of each part, the number of rows in it and in those before it

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        part = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[part][row - int(self.ends[part - 1] if part else 0)]


def train_policy(settings: TrainSettings) -> Policy:
    """How texts become tokens while the model learns: fewer tokens cost less."""
    return Policy(
        max_tokens=settings.max_tokens,
        head_share=settings.head_share,
        precision=settings.precision,
        pooling=settings.pooling,
    )


def predict_policy(settings: TrainSettings) -> Policy:
    """How texts become tokens when the model predicts; saved beside its weights."""
    max_tokens = max(settings.score_tokens, settings.max_tokens)
    return replace(train_policy(settings), max_tokens=max_tokens)


def tokenise_rows(rows: pa.Table, tokenizer: Tokenizer, policy: Policy) -> tuple[Tokens, Tokens]:
    """The column `text` as the encoder sees it, and whole; by chunks, so that few stand as Python strings at a time."""
    seen: list[NDArray[np.int32]] = []
    whole: list[NDArray[np.int32]] = []
    with tqdm(
        total=rows.num_rows, desc="tokenise", unit=" reviews", mininterval=1.0, leave=False
    ) as bar:
        for start in range(0, rows.num_rows, CHUNK_ROWS):
            token_ids, _, bodies = tokenise(
                tokenizer, rows["text"].slice(start, CHUNK_ROWS).to_pylist(), policy
            )
            seen += token_ids
            whole += bodies
            bar.update(len(token_ids))
    return _flat(seen), _flat(whole)


def write_shard(directory: Path, tokens: Tokens, labels: NDArray[np.int64]) -> None:
    """Token rows and labels of a part of a split, for `open_shards`."""
    directory.mkdir()
    for name, array in (("flat", tokens.flat), ("offsets", tokens.offsets), ("labels", labels)):
        np.save(directory / f"{name}.npy", array)


def open_shards(directories: Sequence[Path]) -> tuple[Shards, NDArray[np.int64]]:
    """Token rows, memory-mapped, and labels of a whole split, from its parts in their order."""
    flat = [np.load(place / "flat.npy", mmap_mode="r") for place in directories]
    offsets, labels = (
        [np.load(place / f"{name}.npy") for place in directories] for name in ("offsets", "labels")
    )
    parts = [Tokens(*arrays) for arrays in zip(flat, offsets, strict=True)]
    return Shards(parts, np.cumsum([len(part) for part in parts])), np.concatenate(labels)


def _flat(rows: Sequence[NDArray[np.int32]]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(
        np.int64
    )
    return Tokens(np.concatenate([np.empty(0, np.int32), *rows]), offsets)

"""Reviews as token ids: flat arrays in memory, and shards on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from pipelines.errors import InputError
from pipelines.lake.snapshot import labels_of
from pipelines.model.classifier import Policy, Rows, tokenise
from pipelines.train.settings import TrainSettings

CHUNK_ROWS = 2_000  # reviews tokenised at once: about 3 MB of text


@dataclass(frozen=True)
class Tokens:
    """Token ids of many reviews in one flat array: row i is flat[offsets[i]:offsets[i + 1]]."""

    flat: NDArray[np.int32]  # (tokens of all rows,)
    offsets: NDArray[np.int64]  # (n_rows + 1,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each row, (n_rows,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Shards:
    """The token rows of a split, from several files in order."""

    parts: Sequence[Tokens]
    ends: NDArray[np.int64]  # (n_parts,) cumulative number of rows

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        part = int(np.searchsorted(self.ends, row, side="right"))
        first_row = int(self.ends[part - 1]) if part else 0
        return self.parts[part][row - first_row]


@dataclass(frozen=True)
class LabelledRows:
    """Token rows as the encoder reads them, and their labels."""

    tokens: Rows  # N rows of (T <= max_tokens,), special tokens included
    labels: NDArray[np.int64]  # (N,) 0 or 1


@dataclass(frozen=True)
class TokenisedSplit:
    """A split of the snapshot as token ids, and its labels."""

    encoder: Tokens  # N rows of (T <= max_tokens,), special tokens included
    full: Tokens  # N rows of (T,), no special tokens: what the linear part reads
    labels: NDArray[np.int64]  # (N,) 0 or 1

    @property
    def for_encoder(self) -> LabelledRows:
        """The rows that the encoder reads, and their labels."""
        return LabelledRows(self.encoder, self.labels)


def train_policy(settings: TrainSettings) -> Policy:
    """Return the policy for training texts: fewer tokens train faster."""
    return Policy(
        max_tokens=settings.max_tokens,
        head_share=settings.head_share,
        precision=settings.precision,
        pooling=settings.pooling,
    )


def predict_policy(settings: TrainSettings) -> Policy:
    """Return the policy for prediction, which is saved beside the weights."""
    max_tokens = max(settings.score_tokens, settings.max_tokens)
    return replace(train_policy(settings), max_tokens=max_tokens)


def tokenise_rows(rows: pa.Table, tokenizer: Tokenizer, policy: Policy) -> tuple[Tokens, Tokens]:
    """Tokenise the column `text`: truncated for the encoder, and in full.

    Done in chunks, so that only a few texts are Python strings at the same time.
    """
    encoder_rows: list[NDArray[np.int32]] = []
    full_rows: list[NDArray[np.int32]] = []
    bar = tqdm(
        total=rows.num_rows,
        desc="tokenise",
        unit=" reviews",
        mininterval=1.0,
        leave=False,
    )
    with bar:
        for start in range(0, rows.num_rows, CHUNK_ROWS):
            texts = rows["text"].slice(start, CHUNK_ROWS).to_pylist()
            tokenised = tokenise(tokenizer, texts, policy)
            encoder_rows += tokenised.token_ids
            full_rows += tokenised.bodies
            bar.update(len(texts))
    return _flat(encoder_rows), _flat(full_rows)


def tokenise_split(rows: pa.Table, tokenizer: Tokenizer, policy: Policy) -> TokenisedSplit:
    """Tokenise the rows of one split."""
    encoder, full = tokenise_rows(rows, tokenizer, policy)
    return TokenisedSplit(encoder=encoder, full=full, labels=labels_of(rows))


def require_rows(split: str, rows: LabelledRows) -> None:
    """Raise InputError if a split is empty, or has more or fewer labels than rows."""
    n_rows = len(rows.tokens)
    n_labels = len(rows.labels)
    if n_rows == 0 or n_rows != n_labels:
        raise InputError(
            f"{split} split: expected one label per row and 1 row or more, found {n_labels} labels "
            f"and {n_rows} rows. "
            "Ingest more labelled reviews, or choose another --split-policy."
        )


def write_shard(directory: Path, tokens: Tokens, labels: NDArray[np.int64]) -> None:
    """Write a part of a split, for `open_shards`."""
    directory.mkdir()
    np.save(directory / "flat.npy", tokens.flat)
    np.save(directory / "offsets.npy", tokens.offsets)
    np.save(directory / "labels.npy", labels)


def open_shards(directories: Sequence[Path]) -> LabelledRows:
    """Open a split from its parts, in order. The token ids are memory-mapped."""
    parts: list[Tokens] = []
    labels: list[NDArray[np.int64]] = []
    for directory in directories:
        flat = np.load(directory / "flat.npy", mmap_mode="r")
        parts.append(Tokens(flat=flat, offsets=np.load(directory / "offsets.npy")))
        labels.append(np.load(directory / "labels.npy"))
    ends = np.cumsum([len(part) for part in parts])
    return LabelledRows(tokens=Shards(parts, ends), labels=np.concatenate(labels))


def _flat(rows: Sequence[NDArray[np.int32]]) -> Tokens:
    offsets = np.zeros(len(rows) + 1, np.int64)
    offsets[1:] = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return Tokens(flat=np.concatenate([np.empty(0, np.int32), *rows]), offsets=offsets)

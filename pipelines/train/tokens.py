"""Reviews as token ids: flat arrays in memory, and shards of them on disk."""

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

CHUNK_ROWS = 2_000  # reviews tokenised at a time: about 3 MB of text


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
        """Tokens of each review, special tokens included."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Shards:
    """The token rows of a split from several files, one after another: row i of the split is row i here."""

    parts: Sequence[Tokens]
    ends: NDArray[np.int64]  # (n_parts,) the number of rows in each part and in those before it

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        part = int(np.searchsorted(self.ends, row, side="right"))
        first_row = int(self.ends[part - 1]) if part else 0
        return self.parts[part][row - first_row]


@dataclass(frozen=True)
class LabelledRows:
    """Token rows that the encoder learns from or is judged by, and their labels."""

    tokens: Rows  # N rows of (T <= max_tokens,), special tokens included
    labels: NDArray[np.int64]  # (N,) 0 or 1


@dataclass(frozen=True)
class TokenisedSplit:
    """A split of the snapshot as token ids."""

    encoder: Tokens  # N rows of (T <= max_tokens,), special tokens included
    full: Tokens  # N rows of (T,), no special tokens: what the linear part reads
    labels: NDArray[np.int64]  # (N,) 0 or 1

    @property
    def for_encoder(self) -> LabelledRows:
        """The rows as the encoder sees them."""
        return LabelledRows(self.encoder, self.labels)


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
    encoder_rows: list[NDArray[np.int32]] = []
    full_rows: list[NDArray[np.int32]] = []
    starts = range(0, rows.num_rows, CHUNK_ROWS)
    bar = tqdm(
        total=rows.num_rows,
        desc="tokenise",
        unit=" reviews",
        mininterval=1.0,
        leave=False,
    )
    with bar:
        for start in starts:
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
    """Raise InputError for a split that is empty, or that lacks a label for some row."""
    n_rows = len(rows.tokens)
    n_labels = len(rows.labels)
    if n_rows == 0 or n_rows != n_labels:
        raise InputError(
            f"{split} split: expected as many labels as token rows, at least 1; "
            f"found {n_labels} and {n_rows}. "
            "Ingest more labelled reviews, or choose another --split-policy."
        )


def write_shard(directory: Path, tokens: Tokens, labels: NDArray[np.int64]) -> None:
    """Write token rows and labels of a part of a split, for `open_shards`."""
    directory.mkdir()
    np.save(directory / "flat.npy", tokens.flat)
    np.save(directory / "offsets.npy", tokens.offsets)
    np.save(directory / "labels.npy", labels)


def open_shards(directories: Sequence[Path]) -> LabelledRows:
    """Open a whole split from its parts in their order; the token rows are memory-mapped."""
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

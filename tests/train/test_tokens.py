"""Texts become token ids in flat arrays, by chunks. Needs a tiny tokenizer, no Spark."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.model.classifier import Policy
from pipelines.train.tokens import tokenise_rows
from tests.support.tiny_encoder import CLS, SEP, SPECIAL_TOKENS, tokenizer_of


def test_tokens_are_one_flat_array_and_are_read_back_row_by_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.train.tokens.CHUNK_ROWS", 2)  # three rows, two chunks
    rows = pa.table({"text": ["good film", "bad film", "good"]})
    words = ["good", "bad", "film"]
    vocabulary = [*SPECIAL_TOKENS, *words]
    good, bad, film = [vocabulary.index(word) for word in words]
    tokens, full = tokenise_rows(rows, tokenizer_of(vocabulary), Policy(max_tokens=8))
    assert [tokens[row].tolist() for row in range(len(tokens))] == [
        [CLS, good, film, SEP],
        [CLS, bad, film, SEP],
        [CLS, good, SEP],
    ]
    assert tokens.flat.dtype == np.int32
    assert tokens.lengths.tolist() == [4, 4, 3]
    without_special_tokens = [[good, film], [bad, film], [good]]
    assert [full[row].tolist() for row in range(len(full))] == without_special_tokens


def test_no_rows_give_no_tokens() -> None:
    rows = pa.table({"text": pa.array([], pa.string())})
    tokens, full = tokenise_rows(rows, tokenizer_of(SPECIAL_TOKENS), Policy())
    assert (len(tokens), tokens.flat.size, tokens.lengths.tolist(), len(full)) == (0, 0, [], 0)

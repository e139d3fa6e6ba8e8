"""The packaged reviews, unchanged and in one shuffled order, for all programs of a comparison."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.ingest.sources import Delivery, packaged_file, read_records

SEED = 7


def packaged_reviews(n: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return texts and labels (n,) of the first `n` of the 25,000 packaged reviews, shuffled."""
    file, _ = packaged_file()
    records = list(read_records(Delivery("imdb"), file, Path()))
    shuffled = np.random.default_rng(SEED).permutation(len(records))
    chosen = [records[row] for row in shuffled[:n]]
    texts = [record.text or "" for record in chosen]
    labels = np.array([int(record.label or "") for record in chosen])
    return texts, labels

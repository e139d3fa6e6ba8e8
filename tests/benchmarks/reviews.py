"""The packaged reviews as every program of a comparison gets them: as they are, in one shuffled order."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.ingest.sources import Delivery, packaged_file, read_records

SEED = 7


def packaged_reviews(n: int) -> tuple[list[str], NDArray[np.int64]]:
    """Text and label of `n` of the 25,000 packaged reviews of films; the first n of one shuffled order."""
    file, _ = packaged_file()
    rows = list(read_records(Delivery("imdb"), file, Path()))
    chosen = np.random.default_rng(SEED).permutation(len(rows))[:n]
    return [rows[row].text or "" for row in chosen], np.array(
        [int(rows[row].label or "") for row in chosen]
    )

"""A gold table of a few dozen reviews, with an encoder and flags that train in a second."""

from pathlib import Path

from pyspark.sql import DataFrame

from pipelines.lake.tables import TableStore
from tests.support import tiny_encoder

TRAIN = ["--max-tokens", "16", "--epochs", "2", "--batch-size", "8", "--precision", "fp32"]
SPLITS = ("validation", "validation", "test", "test", "train", "train", "train", "train")
GOLD_COLUMNS = (
    "sha2(text, 256) AS review_id",
    "text",
    "label",
    "split",
    "'imdb' AS source",
    "length(text) AS n_characters",
    "4 AS n_tokens",
    "false AS states_score",
)


def gold_rows(store: TableStore, first: int, last: int) -> DataFrame:
    """Generate reviews that contain their label as a word, in all three splits."""
    rows = []
    for n in range(first, last):
        word = "good" if n % 2 else "bad"
        rows.append((f"{word} film number {n}", n % 2, SPLITS[n % 8]))
    reviews = store.spark.createDataFrame(rows, "text string, label int, split string")
    return reviews.selectExpr(*GOLD_COLUMNS)


def train_rows(reviews: DataFrame) -> DataFrame:
    """Make gold rows of the column `text`: positive reviews, all in train."""
    labelled = reviews.selectExpr("text", "1 AS label", "'train' AS split")
    return labelled.selectExpr(*GOLD_COLUMNS)


def encoder_in(directory: Path) -> str:
    """Build a tiny encoder for the words of `gold_rows`; returns its directory."""
    return str(tiny_encoder.build(directory, ["good bad film number", *map(str, range(80))]))

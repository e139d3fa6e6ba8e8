"""Silver to gold: labelled reviews, each in one split, with length and a flag for stated scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import IntegerType

from pipelines.errors import InputError, IntegrityError
from pipelines.lake.changes import changes_of, net_changes
from pipelines.lake.tables import TableStore
from pipelines.provenance import same_code
from schemas import SILVER_REVIEWS, SPLIT_RANK

# The columns of silver.reviews that decide a row of gold, beside the text behind its id.
PLACED_BY = ("label", "source", "source_split", "normal_hash")

# Of ten reviews eight are for training, one for validation, one for test.
TRAIN_BELOW, VALIDATION_BELOW = 0.8, 0.9
# A source with an official split has train and test only: a tenth of train becomes validation.
OFFICIAL_VALIDATION_FROM = 0.9
# 8/10, 8.5 out of 10, nine stars out of ten; no date (8/10/2003), no larger number (8/10,000).
STATES_SCORE = (
    r"(?i)(?<![\d/.,])\b(?:\d{1,2}(?:[.,]\d)?|one|two|three|four|five|six|seven|eight|nine|ten)"
    r"(?: stars?| points?)? ?(?:/|out of) ?(?:10|ten)\b(?![/.,]\d)"
)


def share_of(normal_hash: Column) -> Column:
    """Return a number in [0, 1) that depends only on the hash of the normalised text."""
    first_32_bits = F.conv(F.substring(normal_hash, 1, 8), 16, 10).cast("double")
    return first_32_bits / F.lit(float(2**32))


def split_of(policy: str, source_split: Column, share: Column) -> Column:
    """Return the split of a row: by its content (hash), or by its source (official, seed).

    Null if the source assigns no split.
    """
    if policy == "hash":
        return (
            F.when(share < TRAIN_BELOW, "train")
            .when(share < VALIDATION_BELOW, "validation")
            .otherwise("test")
        )
    if policy == "seed":
        return source_split
    from_train = (source_split == "train") & (share >= OFFICIAL_VALIDATION_FROM)
    return F.when(from_train, "validation").otherwise(source_split)


def assign(silver: DataFrame, policy: str, sources: tuple[str, ...]) -> DataFrame:
    """Return each silver row with its split, or with the reason why gold leaves it out.

    If a text, apart from case and punctuation, is in two splits, only the copy in the split held
    out is kept: a model must not be evaluated on texts that it was trained on.
    """
    chosen = F.col("source").isin(*sources) if sources else F.lit(True)
    reason = (
        F.when(~chosen, "source_not_chosen")
        .when(F.col("label").isNull(), "unlabelled")
        .when(F.col("split").isNull(), "no_official_split")
    )
    split = split_of(policy, F.col("source_split"), share_of(F.col("normal_hash")))
    placed = silver.withColumn("split", split).withColumn("reason", reason)
    ranks = F.create_map(*[F.lit(item) for pair in SPLIT_RANK.items() for item in pair])
    rank = ranks[F.col("split")]
    same_text = Window.partitionBy("normal_hash")
    least_rank = F.min(F.when(F.col("reason").isNull(), rank)).over(same_text)
    ranked = placed.withColumn("least_rank", least_rank)
    is_refused = F.col("reason").isNull() & (rank > F.col("least_rank"))
    named = F.when(is_refused, "text_in_two_splits").otherwise(F.col("reason"))
    return ranked.select(
        "review_id", "text", "label", "split", "source", "normal_hash", named.alias("reason")
    )


def token_counter(tokenizer_json: str, text: Column) -> Column:
    """Return the number of tokens of each text.

    The tokenizer is passed as JSON text, so that no worker needs its file.
    """

    @same_code
    def count(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        from tokenizers import Tokenizer  # doctor works without the extra `model`

        tokenizer = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        for texts in batches:
            encodings = tokenizer.encode_batch_fast(texts.tolist(), add_special_tokens=False)
            yield pd.Series([len(encoding) for encoding in encodings], dtype="int32")

    # The stubs predate type-hinted UDFs.
    return pandas_udf(count, IntegerType())(text)  # type: ignore[call-overload,no-any-return]


def with_tokens(assigned: DataFrame, tokenizer_json: str) -> DataFrame:
    """Add n_tokens; 0 if gold leaves the row out, so that its text is not tokenised."""
    kept_text = F.when(F.col("reason").isNull(), F.col("text")).otherwise("")
    return assigned.withColumn("n_tokens", token_counter(tokenizer_json, kept_text))


def gold_reviews(counted: DataFrame) -> DataFrame:
    """Return the rows of gold.reviews: those without a reason to leave them out."""
    return counted.where("reason IS NULL").select(
        "review_id",
        "text",
        "label",
        "split",
        "source",
        F.length("text").cast("int").alias("n_characters"),
        "n_tokens",
        F.rlike("text", F.lit(STATES_SCORE)).alias("states_score"),
    )


def gold_rejects(counted: DataFrame) -> DataFrame:
    """Return the rows of gold.rejects: the rows left out, with the reason."""
    return counted.where("reason IS NOT NULL").select("review_id", "reason")


@dataclass(frozen=True)
class Affected:
    """The silver rows to place: all of them, or those that an increment can place otherwise."""

    rows: DataFrame
    review_ids: DataFrame | None  # rows of gold that an increment may change; None: all


def affected_rows(store: TableStore, version: int, since: int | None) -> Affected:
    """Return the silver rows that have changed after the version `since`; None: all rows.

    Each comes with all reviews of the same text, apart from case and punctuation: the split of one
    decides whether another is kept.
    """
    silver = store.read(SILVER_REVIEWS, version)
    changes = None if since is None else changes_of(store, SILVER_REVIEWS, since, version)
    if changes is None:
        require_normal_hashes(silver)
        return Affected(silver, None)
    changed = net_changes(changes, ["review_id", *PLACED_BY])
    hashes = changed.select("normal_hash").distinct()
    rows = silver.join(hashes, "normal_hash", "left_semi")
    ids = changed.select("review_id").unionByName(rows.select("review_id")).distinct()
    return Affected(rows, ids)


def require_normal_hashes(silver: DataFrame) -> None:
    """Raise InputError if silver.reviews is of a release without normal_hash."""
    has_column = "normal_hash" in silver.columns
    if not has_column or not silver.where("normal_hash IS NULL").isEmpty():
        raise InputError(
            "silver.reviews: expected normal_hash in each row, found rows of an older release. "
            "Run jobs/clean.py first."
        )


def check_sources(silver: DataFrame, sources: tuple[str, ...]) -> None:
    """Raise InputError if silver has no rows of a chosen source."""
    if not sources:
        return
    held = sorted(row["source"] for row in silver.select("source").distinct().collect())
    if missing := [name for name in sources if name not in held]:
        raise InputError(
            f"--sources: silver.reviews has no source {', '.join(missing)}. "
            f"Choose from {', '.join(held)}."
        )


def check_splits(assigned: DataFrame, *, is_whole: bool) -> None:
    """Raise IntegrityError if a text is in two splits, and InputError if no row has a split.

    is_whole  the rows are all of silver. An empty split is not an error here: training refuses it.
    """
    gold = assigned.where("reason IS NULL")
    splits_of_text = gold.groupBy("normal_hash").agg(F.count_distinct("split").alias("n"))
    n_shared = splits_of_text.where("n > 1").count()
    if n_shared:
        raise IntegrityError(
            f"gold.reviews: {n_shared:,} texts are in more than one split. "
            "Nothing was written; report this as a bug."
        )
    if is_whole and gold.isEmpty():
        raise InputError(
            "gold.reviews: there are no labelled reviews with a split. Nothing was written. "
            "Ingest labelled reviews, or choose another --split-policy: "
            "hash works without a split from the source."
        )


def rows_by_split(gold: DataFrame) -> dict[str, int]:
    """Count the rows of gold.reviews per split."""
    rows = gold.groupBy("split").agg(F.count("*").alias("n")).collect()
    return {row["split"]: row["n"] for row in rows}


def row_counts(versions: Mapping[str, int]) -> dict[str, str]:
    """Return one query per outcome, over the table versions that a run read and left."""
    at = {name: f"{name} VERSION AS OF {version}" for name, version in versions.items()}
    return {
        "in": f"SELECT count(*) FROM {at['silver.reviews']}",
        "kept": f"SELECT count(*) FROM {at['gold.reviews']}",
        "rejected": f"SELECT count(*) FROM {at['gold.rejects']}",
    }

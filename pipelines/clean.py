"""Bronze to silver: each distinct review text once, as plain text; invalid rows to the rejects."""

import re
from collections.abc import Iterator, Mapping

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import StringType

from pipelines.provenance import same_code
from pipelines.text_rules import MASKS, clean_text
from schemas import LABEL_SPELLINGS, NEGATIVE, NEUTRAL, POSITIVE, SPLIT_RANK, UNKNOWN, UNLABELLED


# The stubs predate type-hinted UDFs.
@pandas_udf(StringType())  # type: ignore[call-overload,untyped-decorator]
@same_code
def plain_text(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
    """Apply `clean_text` to a column; null stays null."""
    for raw in batches:
        yield raw.map(clean_text, na_action="ignore")


def label_meanings(bronze: DataFrame) -> Column:
    """Return the meaning that ingest has recorded; for rows before it did so, by the spelling."""
    keys_and_values = [F.lit(item) for pair in LABEL_SPELLINGS.items() for item in pair]
    spelling = F.lower(F.trim("raw_label"))
    by_spelling = F.coalesce(
        F.try_element_at(F.create_map(*keys_and_values), spelling),
        F.when(F.coalesce(spelling, F.lit("")) == "", UNLABELLED).otherwise(UNKNOWN),
    )
    has_meanings = "label_meaning" in bronze.columns  # a table of an older release has none
    return F.coalesce("label_meaning", by_spelling) if has_meanings else by_spelling


# The SQL of a rule must be true for each row; silver.rejects gives the name of a broken rule.
ROW_RULES = {
    "record_is_readable": "read_fault IS NULL",
    "text_has_no_nul": "NOT coalesce(contains(raw_text, '\\0'), false)",
    "text_is_not_blank": "coalesce(length(text), 0) > 0 OR read_fault IS NOT NULL",
    "label_is_known": f"label_meaning != '{UNKNOWN}'",
    "label_is_polar": f"label_meaning != '{NEUTRAL}'",
}


def clean_reviews(bronze: DataFrame) -> DataFrame:
    """Return one row per bronze row: plain text, label, and the rules that the row breaks."""
    split_rank = F.coalesce(
        *[F.when(F.col("source_split") == name, rank) for name, rank in SPLIT_RANK.items()],
        F.lit(len(SPLIT_RANK)),
    )
    cleaned = bronze.select(
        "source",
        "source_file",
        "source_sha256",
        "row_number",
        "source_split",
        "raw_text",
        "read_fault",
        plain_text("raw_text").alias("text"),
        label_meanings(bronze).alias("label_meaning"),
        split_rank.alias("split_rank"),
    )
    label = F.when(F.col("label_meaning") == POSITIVE, 1).when(
        F.col("label_meaning") == NEGATIVE, 0
    )
    broken = [F.when(~F.expr(rule), F.lit(name)) for name, rule in sorted(ROW_RULES.items())]
    judged = cleaned.withColumns(
        {"label": label.cast("int"), "failed_rules": F.array_compact(F.array(*broken))}
    )
    return judged.drop("raw_text", "label_meaning", "read_fault")


def group_by_text(cleaned: DataFrame) -> DataFrame:
    """Return one row per distinct text of the valid rows, with its origins in a fixed order."""
    kept = cleaned.where(F.size("failed_rules") == 0)
    origin = F.struct(
        "split_rank", "source_sha256", "row_number", "source_file", "source", "source_split"
    )
    grouped = kept.groupBy(F.sha2("text", 256).alias("review_id")).agg(
        F.first("text").alias("text"),
        F.min("label").alias("least_label"),
        F.max("label").alias("label"),
        F.array_sort(F.collect_list(origin)).alias("ranked"),
    )
    return grouped.withColumn("labels_agree", F.col("least_label").eqNullSafe(F.col("label")))


def silver_reviews(grouped: DataFrame) -> DataFrame:
    """Return the rows of silver.reviews: the texts whose copies agree on the label."""
    any_mask = "|".join(re.escape(mask) for mask in MASKS)
    return grouped.where("labels_agree").select(
        "review_id",
        "text",
        "label",
        F.rlike("text", F.lit(any_mask)).alias("has_pii"),
        F.expr("ranked[0].source").alias("source"),
        F.expr("ranked[0].source_split").alias("source_split"),
        F.expr(
            "transform(ranked, o -> struct(o.source_sha256, o.row_number, o.source_file))"
        ).alias("origins"),
    )


def silver_rejects(cleaned: DataFrame, grouped: DataFrame) -> DataFrame:
    """Return the rows of silver.rejects: invalid rows, and all copies of a text with two labels."""
    columns = ("source_sha256", "row_number", "source", "source_file")
    broken = cleaned.where(F.size("failed_rules") > 0).select(*columns, "failed_rules")
    disputed = grouped.where("NOT labels_agree").select(F.explode("ranked").alias("origin"))
    reason = F.array(F.lit("labels_agree")).alias("failed_rules")
    return broken.unionByName(disputed.select("origin.*").select(*columns, reason))


def row_counts(versions: Mapping[str, int]) -> dict[str, str]:
    """Return one query per outcome, over the table versions that a run read and left.

    They count rows in the tables that were written, not in the frames that were computed.
    """
    at = {name: f"{name} VERSION AS OF {version}" for name, version in versions.items()}
    return {
        "in": f"SELECT count(*) FROM {at['bronze.reviews']}",
        "kept": f"SELECT count(*) FROM {at['silver.reviews']}",
        "rejected": f"SELECT count(*) FROM {at['silver.rejects']}",
        "duplicates": f"SELECT coalesce(sum(size(origins) - 1), 0) FROM {at['silver.reviews']}",
    }

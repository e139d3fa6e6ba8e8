"""Bronze to silver: each distinct review text once, as plain text; invalid rows to the rejects."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import StringType

from pipelines import provenance
from pipelines.lake import ledger
from pipelines.lake.changes import changes_of
from pipelines.lake.commits import versions_left
from pipelines.lake.frames import require_conserved
from pipelines.lake.ledger import Base
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from pipelines.provenance import same_code
from pipelines.text_rules import MASKS, clean_text
from schemas import (
    BRONZE_REVIEWS,
    LABEL_SPELLINGS,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    SILVER_REJECTS,
    SILVER_REVIEWS,
    SPLIT_RANK,
    UNKNOWN,
    UNLABELLED,
)

MAX_FILTERED = 1_000  # files named in one filter


@dataclass(frozen=True)
class Outcome:
    """What came of the bronze rows that a run has read."""

    rows: dict[str, int]  # in, kept, rejected, duplicates; less than none if earlier rows moved
    oldest: datetime | None  # when the first of them was ingested


def run(store: TableStore, config: Any) -> Outcome | None:
    """Clean the rows that bronze has added since the last run; all of them if the rules changed.

    config  with the version of bronze it identifies the run
    None if an identical run is done.
    """
    version = store.latest(BRONZE_REVIEWS)
    own_run = ledger.start("clean", config, {BRONZE_REVIEWS.name: version})
    if ledger.already_done(store, own_run):
        return None
    base = ledger.base_of(store, own_run, BRONZE_REVIEWS)
    with cleaned_rows(store, version, base.since if base else None) as cleaned:
        grouped = group_by_text(cleaned.rows)
        # The rejects first: a killed run must not lose the copies of a text that leaves silver.
        rejects = silver_rejects(cleaned.rows, grouped)
        rejected = store.synchronise(SILVER_REJECTS, rejects, cleaned.keys)
        kept = store.synchronise(SILVER_REVIEWS, silver_reviews(grouped), cleaned.review_ids)
        base = base if cleaned.is_increment else None
    versions = {BRONZE_REVIEWS.name: version, **versions_left([kept, rejected])}
    counts = counted(store, versions, base)
    new = {name: n - (base.rows[name] if base else 0) for name, n in counts.items()}
    require_all_rows(counts, new | {"in": cleaned.n_new})
    provenance.log_code("clean")
    ledger.report_differences(store, own_run, [kept, rejected])
    since = {BRONZE_REVIEWS.name: base.since} if base else {}
    ledger.finish(store, own_run, [kept, rejected], counts, input_since=since)
    return Outcome(new, cleaned.oldest)


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
        "ingested_at",
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


def normalised(text: Column) -> Column:
    """Return the text in lower case without punctuation and blanks, to compare copies of a review.

    A text of punctuation alone is returned unchanged; otherwise all of them would be equal.
    """
    letters_and_digits = F.regexp_replace(F.lower(text), r"[^\p{L}\p{N}]+", "")
    return F.when(letters_and_digits == "", text).otherwise(letters_and_digits)


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
        F.sha2(normalised(F.col("text")), 256).alias("normal_hash"),
    )


def silver_rejects(cleaned: DataFrame, grouped: DataFrame) -> DataFrame:
    """Return the rows of silver.rejects: invalid rows, and all copies of a text with two labels."""
    columns = ("source_sha256", "row_number", "source", "source_file")
    no_text = F.lit(None).cast("string").alias("review_id")
    broken = cleaned.where(F.size("failed_rules") > 0).select(*columns, "failed_rules", no_text)
    disputed = grouped.where("NOT labels_agree").select(
        "review_id", F.explode("ranked").alias("origin")
    )
    reason = F.array(F.lit("labels_agree")).alias("failed_rules")
    return broken.unionByName(
        disputed.select("origin.*", "review_id").select(*columns, reason, "review_id")
    )


@dataclass(frozen=True)
class Cleaned:
    """Cleaned rows: all of bronze, or the new ones with the earlier copies of their texts."""

    rows: DataFrame
    n_new: int
    oldest: datetime | None  # ingestion of the new rows
    review_ids: DataFrame | None  # the texts of an increment; None: all
    keys: DataFrame | None  # the bronze rows of an increment; None: all

    @property
    def is_increment(self) -> bool:
        """Return whether only a part of bronze was read."""
        return self.keys is not None


@contextmanager
def cleaned_rows(store: TableStore, version: int, since: int | None) -> Iterator[Cleaned]:
    """Yield the rows that bronze has added after the version `since`, cleaned; None: all rows.

    Each text of theirs comes with all of its copies: with one more copy another label, another
    first origin or a conflict of labels may be right.
    """
    bronze = store.read(BRONZE_REVIEWS, version)
    added = None if since is None else changes_of(store, BRONZE_REVIEWS, since, version)
    with ExitStack() as stack:
        new = clean_reviews(bronze if added is None else added)
        rows = stack.enter_context(staged(store, new, "clean"))
        seen = rows.agg(F.count("*").alias("n"), F.min("ingested_at").alias("oldest")).collect()[0]
        if added is None:
            yield Cleaned(rows, seen["n"], seen["oldest"], None, None)
            return
        is_valid = F.size("failed_rules") == 0
        ids = rows.where(is_valid).select(F.sha2("text", 256).alias("review_id")).distinct()
        copies = copies_before(ids, store.read(SILVER_REVIEWS), store.read(SILVER_REJECTS))
        files = [row[0] for row in copies.select("source_sha256").distinct().collect()]
        if files:
            again = clean_reviews(rows_of(bronze, copies, files))
            # No row counts twice, though it may be among the new ones and in silver.
            again = again.join(rows, list(BRONZE_REVIEWS.key), "left_anti")
            rows = rows.unionByName(stack.enter_context(staged(store, again, "copies")))
        keys = rows.select(*BRONZE_REVIEWS.key)
        yield Cleaned(rows, seen["n"], seen["oldest"], ids, keys)


def copies_before(ids: DataFrame, silver: DataFrame, rejects: DataFrame) -> DataFrame:
    """Return the keys of the bronze rows that were read before and hold one of these texts.

    Their groups change with each new copy: the first origin, the label, or whether labels agree.
    """
    origins = silver.select("review_id", F.explode("origins").alias("origin"))
    kept = origins.join(ids, "review_id", "left_semi").select("origin.*")
    disputed = rejects.join(ids, "review_id", "left_semi")
    return kept.select(*BRONZE_REVIEWS.key).unionByName(disputed.select(*BRONZE_REVIEWS.key))


def rows_of(bronze: DataFrame, keys: DataFrame, files: Sequence[str]) -> DataFrame:
    """Return the bronze rows with these keys, which are all in these delivered files."""
    if len(files) <= MAX_FILTERED:
        bronze = bronze.where(F.col("source_sha256").isin(files))
    return bronze.join(keys, list(BRONZE_REVIEWS.key), "left_semi")


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


def counted(store: TableStore, versions: Mapping[str, int], base: Base | None) -> dict[str, int]:
    """Count the rows by outcome over these table versions; duplicates, from a base, by changes."""
    queries = row_counts(versions)
    if base:
        name = SILVER_REVIEWS.name
        changes = changes_of(store, SILVER_REVIEWS, base.versions[name], versions[name])
        if changes is not None:
            n_more = F.sum(F.col("change") * (F.size("origins") - 1)).alias("n")
            n = base.rows["duplicates"] + (changes.agg(n_more).collect()[0]["n"] or 0)
            queries["duplicates"] = f"SELECT {n:d}"
    return store.counts(queries)


def require_all_rows(counts: Mapping[str, int], new: Mapping[str, int]) -> None:
    """Raise IntegrityError unless each row has an outcome: of all rows, and of the new ones."""
    advice = "Run jobs/clean.py again with --full; report it if it happens again."
    require_conserved("silver.reviews", counts, advice)
    require_conserved("silver.reviews, new rows", new, advice)

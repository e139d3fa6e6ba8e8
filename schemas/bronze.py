"""Bronze: reviews as delivered."""

from schemas.contract import APPEND_ONLY, Column, Table

POSITIVE, NEGATIVE, NEUTRAL = "positive", "negative", "neutral"
UNLABELLED, UNKNOWN = "unlabelled", "unknown"
LABEL_MEANINGS = (POSITIVE, NEGATIVE, NEUTRAL, UNLABELLED, UNKNOWN)
# The meaning of each usual spelling of a label, in lower case. Pandas writes a column of 0 and 1
# with missing values as 0.0 and 1.0.
LABEL_SPELLINGS = {
    "1": POSITIVE,
    "1.0": POSITIVE,
    "true": POSITIVE,
    "pos": POSITIVE,
    "positive": POSITIVE,
    "0": NEGATIVE,
    "0.0": NEGATIVE,
    "false": NEGATIVE,
    "neg": NEGATIVE,
    "negative": NEGATIVE,
}

BRONZE_REVIEWS = Table(
    name="bronze.reviews",
    comment=(
        "Append-only raw truth: one row per review of each ingested file. Built by jobs/ingest.py."
    ),
    columns=(
        Column("source", "string", "Where the reviews come from, e.g. imdb, rotten_tomatoes."),
        Column(
            "source_file", "string", "Name of the file delivered; for an archive, archive!member."
        ),
        Column("source_sha256", "string", "SHA-256 of the delivered file's bytes, lower-case hex."),
        Column(
            "row_number",
            "bigint",
            "Which record of the delivered file, from 1, header not counted.",
        ),
        Column(
            "raw_text", "string", "Review text, as delivered; null where absent.", nullable=True
        ),
        Column(
            "raw_label",
            "string",
            "Label as delivered, e.g. pos, 1; null where unlabelled.",
            nullable=True,
        ),
        Column(
            "label_meaning",
            "string",
            "positive, negative, neutral, unlabelled, or unknown if --label-map does not name the "
            "label; null in rows of older ingests, whose spelling decides.",
            nullable=True,
        ),
        Column(
            "source_split",
            "string",
            "train, validation or test if the source says; else null.",
            nullable=True,
        ),
        Column(
            "read_fault",
            "string",
            "Why the record could not be read whole; else null.",
            nullable=True,
        ),
        Column("batch_id", "string", "Run key of the ingest that added the row."),
        Column("ingested_at", "timestamp", "When the row was added, UTC."),
    ),
    key=("source_sha256", "row_number"),
    checks={
        "source_sha256_is_hex": "source_sha256 rlike '^[0-9a-f]{64}$'",
        "row_number_is_positive": "row_number >= 1",
        "label_meaning_is_known": (f"label_meaning IS NULL OR label_meaning IN {LABEL_MEANINGS}"),
        "source_split_is_known": (
            "source_split IS NULL OR source_split IN ('train', 'validation', 'test')"
        ),
        "unreadable_rows_say_why": "raw_text IS NOT NULL OR read_fault IS NOT NULL",
    },
    properties=APPEND_ONLY,
)

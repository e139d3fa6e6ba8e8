"""Silver: each distinct review once, cleaned; and what was refused, with its reasons."""

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from schemas.contract import Column, Table

ORIGIN = StructType(
    [
        StructField("source_sha256", StringType(), False),
        StructField("row_number", LongType(), False),
        StructField("source_file", StringType(), False),
    ]
)

SILVER_REVIEWS = Table(
    name="silver.reviews",
    comment="One row per distinct cleaned review text. Built by jobs/clean.py from bronze.reviews.",
    columns=(
        Column("review_id", StringType(), "SHA-256 of text, lower-case hex."),
        Column(
            "text", StringType(), "Review text: no HTML, NFC, single spaces, personal data masked."
        ),
        Column(
            "label",
            IntegerType(),
            "1 = positive, 0 = negative; null where unlabelled.",
            nullable=True,
        ),
        Column(
            "has_pii",
            BooleanType(),
            "Whether an e-mail, phone, card, IP address or URL was masked.",
        ),
        Column("source", StringType(), "Source of the first origin."),
        Column(
            "source_split",
            StringType(),
            "Official split of the first origin; null without one.",
            nullable=True,
        ),
        Column(
            "origins",
            ArrayType(ORIGIN, False),
            "Every bronze row that holds this text, the kept one first.",
        ),
    ),
    key=("review_id",),
    checks={
        "review_id_is_hash_of_text": "review_id = sha2(text, 256)",
        "text_is_not_blank": "length(trim(text)) > 0",
        "label_is_binary": "label IS NULL OR label IN (0, 1)",
        "has_an_origin": "size(origins) >= 1",
    },
)

SILVER_REJECTS = Table(
    name="silver.rejects",
    comment="Bronze rows that silver.reviews refused, with every rule they broke. Built by jobs/clean.py.",
    columns=(
        Column(
            "source_sha256", StringType(), "SHA-256 of the delivered file, as in bronze.reviews."
        ),
        Column("row_number", LongType(), "Record of the delivered file, as in bronze.reviews."),
        Column("source", StringType(), "Where the review comes from."),
        Column("source_file", StringType(), "Name of the file delivered."),
        Column(
            "failed_rules", ArrayType(StringType(), False), "Names of the rules broken, sorted."
        ),
    ),
    key=("source_sha256", "row_number"),
    checks={"has_a_reason": "size(failed_rules) >= 1"},
)

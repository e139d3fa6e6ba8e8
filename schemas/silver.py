"""Silver: each distinct review once, cleaned; and rejected rows with their reasons."""

from schemas.contract import Column, Table

ORIGIN = "struct<source_sha256:string,row_number:bigint,source_file:string>"

SILVER_REVIEWS = Table(
    name="silver.reviews",
    comment="One row per distinct cleaned review text. Built by jobs/clean.py from bronze.reviews.",
    columns=(
        Column("review_id", "string", "SHA-256 of text, lower-case hex."),
        Column("text", "string", "Review text: no HTML, NFC, single spaces, personal data masked."),
        Column("label", "int", "1 = positive, 0 = negative; null where unlabelled.", nullable=True),
        Column(
            "has_pii", "boolean", "Whether an e-mail, phone, card, IP address or URL was masked."
        ),
        Column("source", "string", "Source of the first origin."),
        Column(
            "source_split",
            "string",
            "Official split of the first origin; null without one.",
            nullable=True,
        ),
        Column(
            "origins",
            f"array<{ORIGIN}>",
            "Every bronze row that holds this text, the kept one first.",
        ),
        Column(
            "normal_hash",
            "string",
            "SHA-256 of the text in lower case without punctuation and blanks: reviews that share "
            "it get one split; null in rows of older releases.",
            nullable=True,
        ),
    ),
    key=("review_id",),
    set_by_key=("text",),
    checks={
        "review_id_is_hash_of_text": "review_id = sha2(text, 256)",
        "text_is_not_blank": "length(trim(text)) > 0",
        "label_is_binary": "label IS NULL OR label IN (0, 1)",
        "has_an_origin": "size(origins) >= 1",
    },
)

SILVER_REJECTS = Table(
    name="silver.rejects",
    comment=(
        "Bronze rows that silver.reviews refused, with every rule they broke. "
        "Built by jobs/clean.py."
    ),
    columns=(
        Column("source_sha256", "string", "SHA-256 of the delivered file, as in bronze.reviews."),
        Column("row_number", "bigint", "Record of the delivered file, as in bronze.reviews."),
        Column("source", "string", "Where the review comes from."),
        Column("source_file", "string", "Name of the file delivered."),
        Column("failed_rules", "array<string>", "Names of the rules broken, sorted."),
        Column(
            "review_id",
            "string",
            "SHA-256 of the cleaned text whose copies have two labels (labels_agree); else null.",
            nullable=True,
        ),
    ),
    key=("source_sha256", "row_number"),
    checks={"has_a_reason": "size(failed_rules) >= 1"},
)

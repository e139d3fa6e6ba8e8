"""Gold: labelled reviews for models, rejects, and scores."""

from schemas.contract import APPEND_ONLY, Column, Table, View
from schemas.ops import OPS_MODELS, OPS_PROMOTIONS, OPS_RUNS
from schemas.silver import ORIGIN

GOLD_REVIEWS = Table(
    name="gold.reviews",
    comment=(
        "Labelled reviews with their split: what a model may learn from. Built by jobs/curate.py."
    ),
    columns=(
        Column("review_id", "string", "SHA-256 of text; silver.reviews.review_id."),
        Column("text", "string", "Cleaned review text; silver.reviews.text."),
        Column("label", "int", "1 = positive, 0 = negative."),
        Column("split", "string", "train, validation or test; no text stands in two."),
        Column("source", "string", "Where the review comes from."),
        Column("n_characters", "int", "Length of text, characters."),
        Column(
            "n_tokens", "int", "Length of text, tokens of the curating backbone, specials left out."
        ),
        Column(
            "states_score",
            "boolean",
            "Whether the text states its own score, as 8/10: the label leaks.",
        ),
    ),
    key=("review_id",),
    set_by_key=("text",),
    checks={
        "review_id_is_hash_of_text": "review_id = sha2(text, 256)",
        "label_is_binary": "label IN (0, 1)",
        "split_is_known": "split IN ('train', 'validation', 'test')",
        "n_characters_is_length": "n_characters = length(text)",
    },
)

GOLD_REJECTS = Table(
    name="gold.rejects",
    comment="Silver reviews that gold.reviews left out, with the reason. Built by jobs/curate.py.",
    columns=(
        Column("review_id", "string", "silver.reviews.review_id."),
        Column(
            "reason",
            "string",
            "unlabelled, source_not_chosen, no_official_split or text_in_two_splits.",
        ),
    ),
    key=("review_id",),
    checks={
        "reason_is_known": (
            "reason IN ('unlabelled', 'source_not_chosen', 'no_official_split', "
            "'text_in_two_splits')"
        )
    },
)

GOLD_SCORES = Table(
    name="gold.scores",
    comment="One row per review and model version: what the model said. Built by jobs/score.py.",
    columns=(
        Column("review_id", "string", "silver.reviews.review_id."),
        Column("model_name", "string", "Registered model."),
        Column("model_version", "int", "Version of the registered model."),
        Column(
            "probability", "double", "P(positive), 0-1; null with a score_error.", nullable=True
        ),
        Column(
            "prediction",
            "int",
            "1 = positive, 0 = negative; null with a score_error.",
            nullable=True,
        ),
        Column("is_truncated", "boolean", "Whether the model saw only the text's head and tail."),
        Column(
            "score_error",
            "string",
            "Why there is no score; null where there is one.",
            nullable=True,
        ),
        Column("run_id", "string", "MLflow run that trained the model version."),
        Column("silver_version", "bigint", "Delta version of silver.reviews that was scored."),
        Column(
            "source",
            "string",
            "Source of the first origin, as silver.reviews said when it was scored.",
        ),
        Column(
            "origins",
            f"array<{ORIGIN}>",
            "Bronze rows that held the text then, the kept one first.",
        ),
        Column("scored_at", "timestamp", "When the row was scored, UTC."),
    ),
    key=("review_id", "model_name", "model_version"),
    checks={
        "probability_is_a_share": "probability IS NULL OR probability BETWEEN 0 AND 1",
        "prediction_is_binary": "prediction IS NULL OR prediction IN (0, 1)",
        "scored_or_says_why": "(probability IS NULL) = (score_error IS NOT NULL)",
        "has_an_origin": "size(origins) >= 1",
        "prediction_goes_with_probability": "(probability IS NULL) = (prediction IS NULL)",
    },
    properties=APPEND_ONLY,
)

GOLD_CURRENT_SCORES = View(
    name="gold.current_scores",
    comment="The champion's row for each review.",
    sql_file="current_scores.sql",
    reads=(GOLD_SCORES, OPS_PROMOTIONS),
)

GOLD_LINEAGE = View(
    name="gold.lineage",
    comment=(
        "From a scored row to its model version, run, table versions and source bytes; a row per "
        "origin. The silver and bronze versions are those of the scored text; learned_ ones are "
        "those the model learned from."
    ),
    sql_file="lineage.sql",
    reads=(GOLD_SCORES, OPS_MODELS, OPS_RUNS),
)

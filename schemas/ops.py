"""Ops: what was run, what was registered, what was promoted."""

from pyspark.sql.types import (
    ArrayType,
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from schemas.contract import APPEND_ONLY, Column, Table

MODEL_FILE = StructType(
    [
        StructField("path", StringType(), False),
        StructField("bytes", LongType(), False),
        StructField("sha256", StringType(), False),
    ]
)

OPS_RUNS = Table(
    name="ops.runs",
    comment="The ledger: one row per finished run of a stage. A stage whose run_key is here does nothing.",
    columns=(
        Column(
            "run_key",
            StringType(),
            "SHA-256 of stage, settings, input and code release, lower-case hex.",
        ),
        Column("stage", StringType(), "ingest, clean, curate, train, promote, score or reproduce."),
        Column("config", StringType(), "The stage's settings, JSON."),
        Column(
            "input_versions",
            MapType(StringType(), LongType(), False),
            "Delta version read of each table.",
        ),
        Column(
            "output_versions",
            MapType(StringType(), LongType(), False),
            "Delta version left of each table.",
        ),
        Column(
            "output_hash",
            StringType(),
            "Content hash of the first output; null where not a table.",
            nullable=True,
        ),
        Column(
            "rows",
            MapType(StringType(), LongType(), False),
            "Rows by outcome, e.g. in, kept, rejected.",
        ),
        Column("state", StringType(), "done or refused."),
        Column("duration_s", DoubleType(), "Seconds from start to the last commit."),
        Column(
            "code_commit",
            StringType(),
            "git commit of the code; null outside a checkout.",
            nullable=True,
        ),
        Column("finished_at", TimestampType(), "When the run ended, UTC."),
    ),
    key=("run_key", "finished_at"),
    checks={"state_is_known": "state IN ('done', 'refused')"},
    properties=APPEND_ONLY,
)

OPS_MODELS = Table(
    name="ops.models",
    comment="One row per registered model version: what it is made of. Built by jobs/train.py.",
    columns=(
        Column("model_name", StringType(), "Registered model."),
        Column("model_version", IntegerType(), "Version of the registered model."),
        Column("run_id", StringType(), "MLflow run that trained it."),
        Column("gold_version", LongType(), "Delta version of gold.reviews it learned from."),
        Column(
            "silver_version",
            LongType(),
            "Delta version of silver.reviews behind that gold.",
            nullable=True,
        ),
        Column(
            "bronze_version",
            LongType(),
            "Delta version of bronze.reviews behind that silver.",
            nullable=True,
        ),
        Column(
            "content_hash", StringType(), "Order-free content hash of gold.reviews at that version."
        ),
        Column("weights_sha256", StringType(), "SHA-256 of model.safetensors, lower-case hex."),
        Column("manifest_sha256", StringType(), "SHA-256 of the manifest text, lower-case hex."),
        Column(
            "files", ArrayType(MODEL_FILE, False), "The manifest: every file of the logged model."
        ),
        Column(
            "code_commit",
            StringType(),
            "git commit of the training code; null outside a checkout.",
            nullable=True,
        ),
        Column("registered_at", TimestampType(), "When the version was registered, UTC."),
    ),
    key=("model_name", "model_version"),
    checks={
        "weights_sha256_is_hex": "weights_sha256 rlike '^[0-9a-f]{64}$'",
        "manifest_is_not_empty": "size(files) >= 1",
    },
    properties=APPEND_ONLY,
)

OPS_PROMOTIONS = Table(
    name="ops.promotions",
    comment="Every decision of the gate. The latest promoted row of a model names its champion.",
    columns=(
        Column("model_name", StringType(), "Registered model."),
        Column("model_version", IntegerType(), "Version decided on."),
        Column(
            "decision",
            StringType(),
            "promoted, refused or rolled_back; the last names the version returned to.",
        ),
        Column(
            "reasons", StringType(), "Each check of the gate with its figures and verdict, JSON."
        ),
        Column(
            "previous_version",
            IntegerType(),
            "Champion before; null where there was none.",
            nullable=True,
        ),
        Column("decided_at", TimestampType(), "When the decision was made, UTC."),
    ),
    key=("model_name", "decided_at"),
    checks={"decision_is_known": "decision IN ('promoted', 'refused', 'rolled_back')"},
    properties=APPEND_ONLY,
)

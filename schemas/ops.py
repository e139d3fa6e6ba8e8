"""Ops: finished runs, registered models, promotion decisions."""

from schemas.contract import APPEND_ONLY, Column, Table

FILE = "struct<path:string,bytes:bigint,sha256:string>"

OPS_RUNS = Table(
    name="ops.runs",
    comment=(
        "The ledger: one row per finished run of a stage. "
        "A stage whose run_key is here does nothing."
    ),
    columns=(
        Column(
            "run_key",
            "string",
            "SHA-256 of stage, settings, input and code_sha256, lower-case hex.",
        ),
        Column(
            "stage", "string", "ingest, clean, curate, train, promote, score, reproduce or vacuum."
        ),
        Column("config", "string", "The stage's settings, JSON."),
        Column("input_versions", "map<string,bigint>", "Delta version read of each table."),
        Column("output_versions", "map<string,bigint>", "Delta version left of each table."),
        Column(
            "output_hash",
            "string",
            "Content hash of the first output; null where not a table.",
            nullable=True,
        ),
        Column(
            "output_hashes",
            "map<string,string>",
            "Content hash of each table left; of an append-only one, of the rows added after the "
            "version in recorded_since.",
            nullable=True,
        ),
        Column(
            "output_totals",
            "map<string,string>",
            "Number, xor and sum of the row hashes behind each content hash.",
            nullable=True,
        ),
        Column(
            "input_since",
            "map<string,bigint>",
            "Version of each table since which the run looked at the rows; a table without one was "
            "read whole.",
            nullable=True,
        ),
        Column(
            "recorded_since",
            "map<string,bigint>",
            "Version of each table left that an earlier run has recorded; a table without one is "
            "recorded from its start.",
            nullable=True,
        ),
        Column(
            "files",
            f"array<{FILE}>",
            "Commits and data files written to those tables after it, paths below the lake; "
            "null where the lake is not local.",
            nullable=True,
        ),
        Column(
            "previous",
            "array<string>",
            "SHA-256 of the row before this one; of several after runs that ended at once.",
            nullable=True,
        ),
        Column("rows", "map<string,bigint>", "Rows by outcome, e.g. in, kept, rejected."),
        Column("state", "string", "done or refused."),
        Column("duration_s", "double", "Seconds from start to the last commit."),
        Column(
            "code_commit",
            "string",
            "git commit of the code; null outside a checkout.",
            nullable=True,
        ),
        Column(
            "code_sha256",
            "string",
            "SHA-256 of the code and contracts that decide the stage's result.",
            nullable=True,
        ),
        Column("finished_at", "timestamp", "When the run ended, UTC."),
    ),
    key=("run_key", "finished_at"),
    checks={"state_is_known": "state IN ('done', 'refused')"},
    properties=APPEND_ONLY,
)

OPS_MODELS = Table(
    name="ops.models",
    comment="One row per registered model version: what it is made of. Built by jobs/train.py.",
    columns=(
        Column("model_name", "string", "Registered model."),
        Column("model_version", "int", "Version of the registered model."),
        Column("run_id", "string", "MLflow run that trained it."),
        Column("gold_version", "bigint", "Delta version of gold.reviews it learned from."),
        Column(
            "silver_version",
            "bigint",
            "Delta version of silver.reviews behind that gold.",
            nullable=True,
        ),
        Column(
            "bronze_version",
            "bigint",
            "Delta version of bronze.reviews behind that silver.",
            nullable=True,
        ),
        Column(
            "content_hash", "string", "Order-free content hash of gold.reviews at that version."
        ),
        Column("weights_sha256", "string", "SHA-256 of model.safetensors, lower-case hex."),
        Column("manifest_sha256", "string", "SHA-256 of the manifest text, lower-case hex."),
        Column("files", f"array<{FILE}>", "The manifest: every file of the logged model."),
        Column(
            "code_commit",
            "string",
            "git commit of the training code; null outside a checkout.",
            nullable=True,
        ),
        Column("registered_at", "timestamp", "When the version was registered, UTC."),
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
        Column("model_name", "string", "Registered model."),
        Column("model_version", "int", "Version decided on."),
        Column(
            "decision",
            "string",
            "promoted, refused or rolled_back; the last names the version returned to.",
        ),
        Column("reasons", "string", "Each check of the gate with its figures and verdict, JSON."),
        Column(
            "previous_version", "int", "Champion before; null where there was none.", nullable=True
        ),
        Column("decided_at", "timestamp", "When the decision was made, UTC."),
    ),
    key=("model_name", "decided_at"),
    checks={"decision_is_known": "decision IN ('promoted', 'refused', 'rolled_back')"},
    properties=APPEND_ONLY,
)

OPS_DELIVERIES = Table(
    name="ops.deliveries",
    comment=("Every file that an ingest looked at, and what came of it. Built by jobs/ingest.py."),
    columns=(
        Column("path", "string", "Where the file was."),
        Column("bytes", "bigint", "Its size, bytes."),
        Column("modified_ns", "bigint", "When it was last changed, nanoseconds since 1970, UTC."),
        Column("source", "string", "Name of the source, as in bronze.reviews."),
        Column(
            "source_sha256",
            "string",
            "SHA-256 of its bytes, lower-case hex; null where it could not be read.",
            nullable=True,
        ),
        Column(
            "settings_sha256",
            "string",
            "SHA-256 of the settings that it was read with, such as the names of its columns.",
        ),
        Column("rows", "bigint", "Its records; null where it was refused.", nullable=True),
        Column(
            "outcome",
            "string",
            "added: bronze.reviews holds its rows; known: it held them before; refused: it holds "
            "none of this reading; waiting: it changed while it was read.",
        ),
        Column("reason", "string", "Why it was refused or waits; else null.", nullable=True),
        Column("run_key", "string", "Run key of the ingest."),
        Column("decided_at", "timestamp", "When the ingest ended, UTC."),
    ),
    key=("path", "decided_at"),
    checks={
        "outcome_is_known": "outcome IN ('added', 'known', 'refused', 'waiting')",
        "refusals_say_why": "outcome NOT IN ('refused', 'waiting') OR reason IS NOT NULL",
    },
    properties=APPEND_ONLY,
)

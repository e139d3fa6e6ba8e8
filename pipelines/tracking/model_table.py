"""The table ops.models: what each registered model version is made of, kept outside the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from pyspark.sql import DataFrame, Row

from pipelines.errors import InputError, IntegrityError
from pipelines.lake import ledger
from pipelines.lake.frames import one_row
from pipelines.lake.tables import Commit, TableStore
from pipelines.model.manifest import ModelFile
from pipelines.provenance import git_commit
from pipelines.tracking.registry import Registered
from schemas import OPS_MODELS


@dataclass(frozen=True)
class ModelRecord:
    """A row of ops.models."""

    name: str
    version: int
    run_id: str
    gold_version: int
    silver_version: int | None
    bronze_version: int | None
    content_hash: str
    weights_sha256: str
    files: list[ModelFile]

    @property
    def key(self) -> tuple[str, int]:
        """Name and version, as the registry knows it."""
        return self.name, self.version

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def model_records(store: TableStore) -> list[ModelRecord]:
    """Every registered model version, oldest first; none where nothing was trained yet."""
    if not store.exists(OPS_MODELS):
        return []
    # One row for each model version: few.
    rows = store.read(OPS_MODELS).orderBy("model_name", "model_version").collect()
    return [_record(row) for row in rows]


def record_of(store: TableStore, version: ModelVersion) -> ModelRecord:
    """The row of ops.models for a version of the registry; IntegrityError where there is none."""
    for record in model_records(store):
        if record.key == (version.name, int(version.version)):
            return record
    raise IntegrityError(
        f"{version.name} version {version.version}: expected a row in ops.models, found none. "
        "Its files cannot be checked; run jobs/train.py again."
    )


def record_of_run(store: TableStore, run_id: str) -> ModelRecord:
    """The model version that a run registered; InputError where there is none."""
    for record in model_records(store):
        if record.run_id == run_id:
            return record
    raise InputError(
        f"run {run_id}: expected the id of a run in ops.models, found none. "
        'List them with jobs/query.py --sql "SELECT run_id, model_name, model_version FROM ops.models".'
    )


def require_added(commit: Commit, registered: Registered) -> Commit:
    """The commit, unless ops.models held that version already: then the registry counts from 1 again."""
    if commit.n_added != 1:
        raise IntegrityError(
            f"ops.models: expected no {registered.name} version {registered.version} yet, found one: the registry was "
            "emptied or restored. Restore <lake>/mlflow from a backup, or train under another --model-name."
        )
    return commit


def model_row(
    store: TableStore, registered: Registered, gold_version: int, content_hash: str
) -> DataFrame:
    """The row of ops.models: the link from the registry to the tables, and the manifest outside the registry."""
    silver_version = ledger.input_version(
        store, "curate", "gold.reviews", gold_version, "silver.reviews"
    )
    bronze_version = ledger.input_version(
        store, "clean", "silver.reviews", silver_version, "bronze.reviews"
    )
    row = (
        registered.name,
        registered.version,
        registered.run_id,
        gold_version,
        silver_version,
        bronze_version,
        content_hash,
        registered.weights_sha256,
        registered.manifest_sha256,
        registered.files,
        git_commit(),
    )
    return one_row(store.spark, OPS_MODELS, row)


def record_model(
    store: TableStore,
    run: ledger.Run,
    registered: Registered,
    content_hash: str,
    n_rows: Mapping[str, int],
) -> None:
    """Note a training's model version in ops.models, then the training in the ledger."""
    row = model_row(store, registered, int(run.inputs["gold.reviews"]), content_hash)
    commit = require_added(store.merge(OPS_MODELS, row), registered)
    counts = {**n_rows, "model_version": registered.version}
    ledger.finish(store, run, [commit], counts, output_hash=content_hash)


def _record(row: Row) -> ModelRecord:
    return ModelRecord(
        name=row["model_name"],
        version=row["model_version"],
        run_id=row["run_id"],
        gold_version=row["gold_version"],
        silver_version=row["silver_version"],
        bronze_version=row["bronze_version"],
        content_hash=row["content_hash"],
        weights_sha256=row["weights_sha256"],
        files=[(file["path"], file["bytes"], file["sha256"]) for file in row["files"]],
    )

"""The table ops.models: origin and manifest of each registered model version.

It is kept outside the registry, so that a changed registry is noticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from pyspark.sql import DataFrame, Row

from pipelines.errors import InputError, IntegrityError
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.frames import one_row
from pipelines.lake.tables import TableStore
from pipelines.model.manifest import ModelFile
from pipelines.provenance import git_commit
from pipelines.tracking import registry
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
        """Name and version: the key in the registry."""
        return self.name, self.version

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def model_records(store: TableStore) -> list[ModelRecord]:
    """Return all registered model versions by name and version; none before the first training."""
    if not store.exists(OPS_MODELS):
        return []
    # One row per model version: few rows.
    rows = store.read(OPS_MODELS).orderBy("model_name", "model_version").collect()
    return [_record(row) for row in rows]


class Models(NamedTuple):
    """The registered models as ops.models and the registry know them."""

    records: list[ModelRecord]
    names: set[str]  # in the registry, even if all versions were deleted
    live: set[tuple[str, int]]  # name and version in the registry


def models_of(store: TableStore, client: MlflowClient) -> Models:
    """Return the lake's models. The registry is read last, so that none is missed meanwhile."""
    records = model_records(store)
    names = registry.names(client, store.config, {record.name for record in records})
    return Models(records, names, registry.live_versions(client, names))


def record_of(store: TableStore, version: ModelVersion) -> ModelRecord:
    """Return the row of ops.models for a registry version; IntegrityError if it is missing."""
    for record in model_records(store):
        if record.key == (version.name, int(version.version)):
            return record
    raise IntegrityError(
        f"{version.name} version {version.version}: its row in ops.models is missing, "
        "so its files cannot be checked. Run jobs/train.py again."
    )


def record_of_run(store: TableStore, run_id: str) -> ModelRecord:
    """Return the model version that a run registered; InputError if there is none."""
    for record in model_records(store):
        if record.run_id == run_id:
            return record
    raise InputError(
        f"run {run_id}: expected the id of a run in ops.models, found none. "
        "List them with jobs/query.py "
        '--sql "SELECT run_id, model_name, model_version FROM ops.models".'
    )


def require_added(commit: Commit, registered: Registered) -> Commit:
    """Return the commit; IntegrityError if ops.models had a row for this version already.

    Then the registry was emptied and numbers its versions from 1 again.
    """
    if commit.n_added != 1:
        raise IntegrityError(
            f"ops.models: {registered.name} version {registered.version} is already there: "
            "the registry was emptied or restored. Restore <lake>/mlflow from a backup, "
            "or train with another --model-name."
        )
    return commit


def model_row(
    store: TableStore, registered: Registered, gold_version: int, content_hash: str
) -> DataFrame:
    """Build the row of ops.models: the table versions behind a model version, and its manifest."""
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
    """Write the model version to ops.models, then the training to the ledger."""
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

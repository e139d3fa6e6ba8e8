"""MLflow's runs: start one, log into it, read a past one."""

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines.errors import InputError, IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.program import environment

log = logging.getLogger("reviewlake")

METRICS_PER_REQUEST = 1_000  # the tracking store's limit
PREDICTIONS = "test_predictions.parquet"


@dataclass(frozen=True)
class PastRun:
    """A past training run as MLflow recorded it."""

    run_id: str
    experiment: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: Mapping[tuple[str, int], float]  # by metric and epoch


@contextlib.contextmanager
def tracked(
    client: MlflowClient,
    config: LakeConfig,
    experiment: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> Iterator[str]:
    """Start a run and yield its id; the run fails if the block raises."""
    experiment_id = _experiment_id(client, config, experiment)
    # `mlflow run` sets both variables, for a run in another store.
    with (
        environment(MLFLOW_RUN_ID=None, MLFLOW_EXPERIMENT_ID=None),
        mlflow.start_run(
            experiment_id=experiment_id, tags=dict(tags), log_system_metrics=False
        ) as run,
    ):
        mlflow.log_params(dict(params))
        yield run.info.run_id
    log.info("run %s of experiment %s: finished", run.info.run_id, experiment)


def _experiment_id(client: MlflowClient, config: LakeConfig, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        place = artifacts_of(config, mlflow.get_tracking_uri())
        return client.create_experiment(name, artifact_location=place)
    if experiment.lifecycle_stage != "active":
        raise InputError(f"--experiment {name}: this experiment is deleted. Pass another name.")
    return experiment.experiment_id


def artifacts_of(config: LakeConfig, tracking_uri: str) -> str | None:
    """Return the artifact location for a store without a server, readable by all workers.

    None if a server chooses the location.
    """
    if config.is_local:
        return (config.lake_path / "mlflow" / "artifacts").as_uri()
    if re.match("(sqlite|postgresql|mysql|mssql)", tracking_uri):
        return (config.landing_path / "mlflow").as_uri()
    return None


def log_dataset(table: str, location: str, version: int, digest: str) -> None:
    """Log the table version as an MLflow dataset, with our content hash as digest.

    MLflow drops version 0, so the name has the version too. A table is named by its path if it
    has one: for a table name, MLflow looks for a Databricks workspace, which takes seconds.
    """
    place = {"path": location} if location else {"delta_table_name": table}
    source = DeltaDatasetSource(**place, delta_table_version=version)
    dataset = MetaDataset(source, name=f"{table}@{version}", digest=digest)  # type: ignore[abstract]  # only by its stubs
    mlflow.log_input(dataset, context="training")


def log_steps(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log many metrics in few requests."""
    for start in range(0, len(metrics), METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])


def log_predictions(predictions: pa.Table) -> None:
    """Log the test rows with their predictions as an artifact of the active run."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / PREDICTIONS
        pq.write_table(predictions, file)  # type: ignore[no-untyped-call]
        mlflow.log_artifact(str(file))


def past_run(client: MlflowClient, run_id: str, epoch_metrics: Sequence[str]) -> PastRun:
    """Return a finished training run; InputError if there is none with this id."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(
            f"run {run_id}: no such run in this lake's MLflow. Look it up in ops.models."
        ) from error
    is_training = "delta.version" in run.data.tags
    if not is_training or run.info.status != "FINISHED":
        state = run.info.status.lower()
        raise InputError(
            f"run {run_id}: expected a finished training run, found a {state} one"
            f"{'' if is_training else ' without delta.version'}. Look it up in ops.models."
        )
    epochs = {
        (name, point.step): point.value
        for name in epoch_metrics
        for point in client.get_metric_history(run_id, name)
    }
    experiment = client.get_experiment(run.info.experiment_id).name
    return PastRun(
        run_id=run_id,
        experiment=experiment,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
        epochs=epochs,
    )


def kept(client: MlflowClient) -> list[tuple[str, str, int]]:
    """Return run id, table and version of each run tagged `keep` (unless `keep` is false)."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    pins = []
    for run in client.search_runs(experiments, "tags.keep LIKE '%'", max_results=50_000):
        tags = run.data.tags
        if tags["keep"].lower() not in ("", "false") and "delta.version" in tags:
            pins.append((run.info.run_id, tags["delta.table"], int(tags["delta.version"])))
    return pins


def log_verdict(verdict: str, differing: Sequence[str], figures: Mapping[str, float]) -> None:
    """Log the result of a reproduction into the active run."""
    mlflow.set_tags({"verdict": verdict, "differs": "; ".join(differing)})
    mlflow.log_metrics(dict(figures))


def predictions_of(client: MlflowClient, run_id: str) -> pa.Table:
    """Return a run's predictions of the test rows; IntegrityError if missing or damaged."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            file = client.download_artifacts(run_id, PREDICTIONS, directory)
            return pq.read_table(file)  # type: ignore[no-untyped-call]
    except (MlflowException, OSError, pa.ArrowInvalid) as error:
        raise IntegrityError(
            f"run {run_id}: its artifact {PREDICTIONS} is missing or damaged. "
            "Restore <lake>/mlflow from a backup; --data-only does not need it."
        ) from error

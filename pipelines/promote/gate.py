"""Judge challenger, champion and baseline on the same held-out rows, and record the decision."""

import json
import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from tqdm import tqdm

from pipelines.errors import IntegrityError
from pipelines.lake.commits import Commit
from pipelines.lake.frames import one_row
from pipelines.lake.snapshot import labels_of, open_snapshot, rows_of, snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.promote.checks import EXAMPLES, Predictions, Verdict, judge
from pipelines.tracking import model_files, model_table
from schemas import OPS_PROMOTIONS

Predict = Callable[
    [list[str]], pd.DataFrame
]  # from texts to the columns prediction and probability
CHUNK_ROWS = 500
log = logging.getLogger("reviewlake")


def verified_model(store: TableStore, client: MlflowClient, version: ModelVersion) -> Predict:
    """Return the model version as a function of texts; verify its files before loading any."""
    files = model_table.record_of(store, version).files
    return model_files.load(model_files.verified_directory(client, version, files), files)


def judge_challenger(
    store: TableStore, client: MlflowClient, challenger: ModelVersion, champion: ModelVersion | None
) -> Verdict:
    """Judge the challenger on the test rows of the gold version that it learned from."""
    from pipelines.promote.baseline import fit_baseline, predict  # scikit-learn takes a second

    learned_from = model_table.record_of(store, challenger)
    model = verified_model(store, client, challenger)
    with snapshot_of(store, learned_from.gold_version) as (file, content_hash):
        if content_hash != learned_from.content_hash:
            raise IntegrityError(
                f"gold.reviews version {learned_from.gold_version}: expected content hash "
                f"{learned_from.content_hash}, which the challenger's training recorded, "
                f"found {content_hash}. jobs/doctor.py says what to do."
            )
        snapshot = open_snapshot(file)
        train = rows_of(snapshot, "train")
        test = rows_of(snapshot, "test")
        labels = labels_of(test)
        log.info("gate: fitting the TF-IDF baseline on %s rows", f"{train.num_rows:,}")
        baseline_model = fit_baseline(train["text"], labels_of(train))
        baseline_labels = predict(baseline_model, test["text"])
        log.info("gate: scoring %s test rows", f"{test.num_rows:,}")
        challenger_predictions = _predictions(model, test)
        champion_predictions = None
        if champion:
            champion_predictions = _predictions(verified_model(store, client, champion), test)
        verdict = judge(
            labels,
            challenger_predictions,
            baseline=Predictions(baseline_labels),
            champion=champion_predictions,
            examples=model([text for text, _ in EXAMPLES])["probability"].to_numpy(),
        )
    for check in verdict.checks:
        log.info("gate: %s", check)
        for name, value in check.figures.items():
            client.log_metric(learned_from.run_id, f"gate.{check.name}.{name}", value)
    accuracy = float(np.mean(baseline_labels == labels))
    client.log_metric(learned_from.run_id, "baseline_accuracy", accuracy)
    return verdict


def record_decision(
    store: TableStore, name: str, version: int, decision: str, reasons: str, previous: int | None
) -> Commit:
    """Append a decision to ops.promotions.

    Call it before the aliases move, so that a run that is killed in between is repeated as a whole.
    """
    values = (name, version, decision, reasons, previous)
    return store.append(OPS_PROMOTIONS, one_row(store.spark, OPS_PROMOTIONS, values))


def rollback_reasons() -> str:
    """Return the reasons of a rollback: it was requested."""
    return json.dumps([{"name": "rollback", "sentence": "requested with --rollback"}])


def _predictions(model: Predict, rows: pa.Table) -> Predictions:
    starts = range(0, rows.num_rows, CHUNK_ROWS)
    scored = pd.concat(
        model(rows["text"].slice(start, CHUNK_ROWS).to_pylist())
        for start in tqdm(starts, desc="gate", unit=f" x {CHUNK_ROWS} reviews", delay=2)
    )
    return Predictions(scored["prediction"].to_numpy(), scored["probability"].to_numpy())

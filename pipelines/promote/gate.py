"""What the gate judges by: challenger, champion and baseline on the same held-out rows of one gold version."""

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
from pipelines.lake.frames import one_row
from pipelines.lake.snapshot import labels_of, open_snapshot, rows_of, snapshot_of
from pipelines.lake.tables import Commit, TableStore
from pipelines.promote.baseline import fit_baseline, predict
from pipelines.promote.checks import EXAMPLES, Predictions, Verdict, judge
from pipelines.tracking import model_files, model_table
from schemas import OPS_PROMOTIONS

Predict = Callable[[list[str]], pd.DataFrame]  # texts to the columns prediction and probability
CHUNK_ROWS = 500
log = logging.getLogger("reviewlake")


def verified_model(store: TableStore, client: MlflowClient, version: ModelVersion) -> Predict:
    """The model version as a function of texts, its files checked against ops.models before any is imported."""
    files = model_table.record_of(store, version).files
    return model_files.load(model_files.verified_directory(client, version, files))


def judge_challenger(
    store: TableStore, client: MlflowClient, challenger: ModelVersion, champion: ModelVersion | None
) -> Verdict:
    """Fit the baseline on the challenger's own gold version, predict its test rows with all, and judge."""
    learned_from = model_table.record_of(store, challenger)
    model = verified_model(store, client, challenger)
    with snapshot_of(store, learned_from.gold_version) as (file, content_hash):
        if content_hash != learned_from.content_hash:
            raise IntegrityError(
                f"gold.reviews version {learned_from.gold_version}: expected content hash "
                f"{learned_from.content_hash}, as the challenger's training read, "
                f"found {content_hash}."
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
    """Append a decision to ops.promotions: before the aliases move, so that a run cut short is repeated whole."""
    values = (name, version, decision, reasons, previous)
    return store.append(OPS_PROMOTIONS, one_row(store.spark, OPS_PROMOTIONS, values))


def rollback_reasons() -> str:
    """The reasons of a rollback: somebody asked for it."""
    return json.dumps([{"name": "rollback", "sentence": "asked for with --rollback"}])


def _predictions(model: Predict, rows: pa.Table) -> Predictions:
    starts = range(0, rows.num_rows, CHUNK_ROWS)
    scored = pd.concat(
        model(rows["text"].slice(start, CHUNK_ROWS).to_pylist())
        for start in tqdm(starts, desc="gate", unit=f" x {CHUNK_ROWS} reviews", delay=2)
    )
    return Predictions(scored["prediction"].to_numpy(), scored["probability"].to_numpy())

"""The demo: the bundle's pipeline on the packaged reviews, and a summary of the lake afterwards."""

from collections.abc import Mapping

from mlflow.tracking import MlflowClient
from pyspark.sql import SparkSession

from pipelines import program
from pipelines.bundle import resolve, runner
from pipelines.bundle.graph import job_of
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_log import opened
from pipelines.lake.tables import TableStore
from pipelines.operate.query import rendered
from pipelines.tracking import registry
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME
from schemas import GOLD_SCORES, TABLES, Table

STAGES = ("ingest", "clean", "curate", "train", "promote", "score")
EXAMPLE_SQL = """\
SELECT s.source, label, count(*) AS reviews, round(avg(probability), 3) AS mean_probability,
       round(avg(CAST(prediction = label AS INT)), 3) AS agreement
FROM gold.scores AS s JOIN silver.reviews USING (review_id)
WHERE model_version = {version}
GROUP BY s.source, label ORDER BY s.source, label"""
NEXT_STEPS = """\
What to look at next
  . .venv/bin/activate
  python jobs/query.py --lake "{lake}" --sql "SELECT * FROM gold.lineage LIMIT 3"
      from each score back to the row of the source file
  python jobs/reproduce.py models:/review_classifier@champion --lake "{lake}"
      train it again and compare the weights
  mlflow ui --backend-store-uri "sqlite:///{lake}/mlflow/mlflow.db"
      MLflow: learning curves, plots, model card
  python jobs/ingest.py --lake "{lake}" --source rotten_tomatoes
  python jobs/clean.py --lake "{lake}" && python jobs/score.py --lake "{lake}"
      ingest more reviews and score them
  TABLES.md
      the meaning of each column"""
NOTHING_NEW = "Nothing to do: no table has a new version."
REFUSED = "The gate refused the challenger; ops.promotions says why. The champion has not changed."
TOO_FEW = (
    "QUICK: {n:,} reviews are too few to judge quality by. "
    "The figures below only show that every stage runs."
)


def variables(lake: str, max_rows: int) -> dict[str, str]:
    """Return the bundle variables that the demo sets."""
    if not max_rows:
        return {"lake": lake}
    # Fewer reviews need smaller batches: with fewer than about 200 steps the model's
    # head hardly changes from its random start.
    return {"lake": lake, "max_rows": str(max_rows), "batch_size": "8"}


def run(job_name: str, parameters: Mapping[str, str], lake: str, max_rows: int) -> int:
    """Run a job of the bundle in this process, print its summary, return its exit code."""
    definition = resolve.definition_for(resolve.LOCAL, variables(lake, max_rows))
    job = job_of(definition, job_name)
    results = runner.run_local(definition, job, parameters, runner.in_process, resume=False)
    program.show(*runner.summary(job, results))
    return runner.exit_code(job, results)


def versions_of(store: TableStore) -> dict[str, int]:
    """Return the latest version of each table that exists."""
    return {table.name: store.version(table) for table in TABLES if store.exists(table)}


def summary(store: TableStore, client: MlflowClient, max_rows: int, is_refused: bool) -> str:
    """Return row counts, versions, the model, its metrics, and the answer to one SQL query.

    max_rows  number of reviews taken, 0 = all
    The query needs Spark, so it is left out if every stage was done before.
    """
    parts = []
    if max_rows:
        parts.append(TOO_FEW.format(n=max_rows))
    if is_refused:
        parts.append(REFUSED)
    parts += [_tables(store), _rows_by_stage(store), _model(client)]
    has_spark = SparkSession.getActiveSession() is not None  # some stage had work to do
    if has_spark and store.exists(GOLD_SCORES):
        parts.append(_question(store))
    return "\n\n".join(parts)


def _tables(store: TableStore) -> str:
    lines = ["Tables"]
    for table in TABLES:
        if store.exists(table):
            version, n_rows = store.version(table), n_rows_of(store.config, table)
            lines.append(f"  {table.name:<16} version {version:>3} {n_rows:>9,} rows")
    return "\n".join(lines)


def n_rows_of(lake: LakeConfig, table: Table) -> int:
    """Count the rows of a local table from its Parquet footers, without Spark."""
    import pyarrow.parquet as pq

    with opened(table, lake.log_directory(table)) as delta_table:
        files = delta_table.file_uris()
    footers = [pq.ParquetFile(file).metadata for file in files]  # type: ignore[no-untyped-call]
    return sum(footer.num_rows for footer in footers)


def _rows_by_stage(store: TableStore) -> str:
    rows_by_stage = ledger.last_rows_by_stage(store)
    lines = ["Rows by stage"]
    for stage in STAGES:
        if stage in rows_by_stage:
            outcomes = [
                f"{n:,} {name.replace('_', ' ')}" for name, n in rows_by_stage[stage].items()
            ]
            lines.append(f"  {stage:<8} {', '.join(outcomes)}")
    return "\n".join(lines)


def _model(client: MlflowClient) -> str:
    champion = registry.version_of(client, MODEL_NAME, CHAMPION)
    shown = champion or registry.resolve(client, MODEL_NAME, CHALLENGER)
    run = client.get_run(shown.run_id or "")
    metrics = run.data.metrics
    gold_version = run.data.tags["delta.version"]
    baseline = metrics.get("baseline_accuracy", float("nan"))
    error = metrics["test_calibration_error"]
    lines = [
        f"Model {MODEL_NAME}",
        f"  run       {run.info.run_id}, gold.reviews version {gold_version}",
        *_held_out_figures(metrics),
        f"  parts     {_parts(metrics)}",
        f"  baseline  {baseline:.4f}  accuracy of TF-IDF and logistic regression",
        f"  rows      {metrics['test_rows']:,.0f} held out; calibration error {error:.4f}",
        f"  champion  {f'version {champion.version}' if champion else 'none'}",
    ]
    return "\n".join(lines)


def _held_out_figures(metrics: Mapping[str, float]) -> list[str]:
    lines = []
    for name in ("accuracy", "precision", "recall", "f1"):
        if f"test_{name}_low" in metrics:
            value = metrics[f"test_{name}"]
            low, high = metrics[f"test_{name}_low"], metrics[f"test_{name}_high"]
            lines.append(f"  {name:<9} {value:.4f}  (95 % {low:.4f}-{high:.4f})")
    return lines


def _parts(metrics: Mapping[str, float]) -> str:
    """Return the accuracy of each part of the model alone."""
    names = {
        "test_accuracy_encoder": "the encoder alone",
        "test_accuracy_lexical": "the linear part over the whole text alone",
    }
    return ", ".join(f"{metrics[key]:.4f} {name}" for key, name in names.items() if key in metrics)


def _question(store: TableStore) -> str:
    latest = store.sql("SELECT max(model_version) AS version FROM gold.scores").collect()[0]
    sql = EXAMPLE_SQL.format(version=latest["version"])
    answer = "\n".join(rendered(store.sql(sql), "table", 0, 60))
    return f"SQL over the scored table\n{_indented(sql)}\n\n{_indented(answer)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

"""The demo: what it sets of the bundle's variables, and what the lake says of itself afterwards."""

from collections.abc import Mapping

from mlflow.tracking import MlflowClient

from pipelines.lake import ledger
from pipelines.lake.tables import TableStore
from pipelines.operate.query import rendered
from pipelines.tracking import registry
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME
from schemas import GOLD_SCORES, TABLES

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
  python jobs/query.py --lake "{lake}" --sql "SELECT * FROM gold.lineage LIMIT 3"    from a score to its bytes
  python jobs/reproduce.py models:/review_classifier@champion --lake "{lake}"        the same weights again?
  mlflow ui --backend-store-uri "sqlite:///{lake}/mlflow/mlflow.db"                  curves, figures, model card
  python jobs/ingest.py --lake "{lake}" --source rotten_tomatoes                     new arrivals, then
  python jobs/clean.py --lake "{lake}" && python jobs/score.py --lake "{lake}"       their scores
  TABLES.md                                                                        what each column means"""
NOTHING_NEW = "Nothing was to do: no table has a new version."
REFUSED = "The gate refused the challenger; ops.promotions says why. The champion is as before."
TOO_FEW = "QUICK: {n:,} reviews are too few to judge quality by. The figures below only show that every stage runs."


def variables(lake: str, max_rows: int) -> dict[str, str]:
    """What the demo sets of databricks.yml's variables; `lake` absolute, or it would be below the checkout's root."""
    # With fewer reviews smaller batches: some 200 steps at least, or the head has hardly left its random start.
    few = {"max_rows": str(max_rows), "batch_size": "8"} if max_rows else {}
    return {"lake": lake, **few}


def summary(store: TableStore, client: MlflowClient, max_rows: int, is_refused: bool) -> str:
    """Rows, versions, the run, its figures against the baseline's, the champion, and one question answered.

    max_rows  how many reviews were taken; 0 = all
    """
    remarks = ([TOO_FEW.format(n=max_rows)] if max_rows else []) + ([REFUSED] if is_refused else [])
    parts = [*remarks, _tables(store), _flow(store), _model(client)]
    if store.exists(GOLD_SCORES):
        version = store.sql("SELECT max(model_version) AS version FROM gold.scores").collect()[0][
            "version"
        ]
        question = EXAMPLE_SQL.format(version=version)
        answer = "\n".join(rendered(store.sql(question), "table", 0, 60))
        parts.append(f"SQL over the scored table\n{_indented(question)}\n\n{_indented(answer)}")
    return "\n\n".join(parts)


def _tables(store: TableStore) -> str:
    now = {table.name: store.version(table) for table in TABLES if store.exists(table)}
    # As they are now: to count them by version takes five seconds more.
    counts = store.counts({name: f"SELECT count(*) FROM {name}" for name in now})
    lines = [f"  {name:<16} version {now[name]:>3} {counts[name]:>9,} rows" for name in now]
    return "\n".join(["Tables", *lines])


def _flow(store: TableStore) -> str:
    found = {
        row["stage"]: row["rows"] for row in ledger.last_runs(store, "rows").collect()
    }  # one row a stage
    lines = [
        f"  {name:<8} "
        + ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in found[name].items())
        for name in STAGES
        if name in found
    ]
    return "\n".join(["Rows by stage", *lines])


def _model(client: MlflowClient) -> str:
    champion = registry.version_of(client, MODEL_NAME, CHAMPION)
    shown = champion or registry.resolve(client, MODEL_NAME, CHALLENGER)
    run = client.get_run(shown.run_id or "")
    metrics = run.data.metrics
    lines = [
        f"  run       {run.info.run_id}, gold.reviews version {run.data.tags['delta.version']}",
        *(
            f"  {name:<9} {metrics[f'test_{name}']:.4f}  (95 % {metrics[f'test_{name}_low']:.4f}-"
            f"{metrics[f'test_{name}_high']:.4f})"
            for name in ("accuracy", "precision", "recall", "f1")
            if f"test_{name}_low" in metrics
        ),
        f"  parts     {_parts(metrics)}",
        f"  baseline  {metrics.get('baseline_accuracy', float('nan')):.4f}  accuracy of TF-IDF and logistic regression",
        f"  rows      {metrics['test_rows']:,.0f} held out; calibration error {metrics['test_calibration_error']:.4f}",
        f"  champion  {f'version {champion.version}' if champion else 'none'}",
    ]
    return "\n".join([f"Model {MODEL_NAME}", *lines])


def _parts(metrics: Mapping[str, float]) -> str:
    """The accuracy of each part of the model by itself."""
    alone = {"encoder": "the encoder alone", "lexical": "the linear part over the whole text alone"}
    found = {words: metrics.get(f"test_accuracy_{part}") for part, words in alone.items()}
    return ", ".join(f"{value:.4f} {words}" for words, value in found.items() if value is not None)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())

"""Scoring: real reviews, up to 512 tokens each, from silver in Delta to scores in Delta.

    python -m tests.benchmarks.scoring prepare DIRECTORY 2000
    python -m tests.benchmarks.scoring ours DIRECTORY

`prepare` writes into DIRECTORY a lake with reviews, our model in its registry, and the same weights
in MLflow's own flavour `transformers`.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
import transformers
from deltalake import DeltaTable
from pyspark.sql import functions as F
from tokenizers import Tokenizer

from jobs import clean, ingest, score
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from pipelines.model import backbone, classifier
from pipelines.tracking import registry, runs
from pipelines.tracking.model_table import model_row
from pipelines.tracking.store import connect
from pipelines.train.encoder import load_for_training
from pipelines.train.settings import TrainSettings
from schemas import OPS_MODELS, SILVER_REVIEWS
from tests.benchmarks.compare import Program, alternate, seconds_of, table
from tests.benchmarks.plain import MAX_TOKENS, plain_model, plain_tokenizer
from tests.benchmarks.reviews import SEED

BATCH_SIZE = 32
N_REVIEWS = 2_000
OURS = "jobs/score.py"
NAME = "review_classifier"
PLAIN = "plain-model"  # the directory of the weights in MLflow's own flavour
PIPELINE_OPTIONS = {"batch_size": BATCH_SIZE, "truncation": True, "max_length": MAX_TOKENS}


def prepare(directory: Path, n_reviews: int) -> None:
    """Put reviews into silver, and an untrained classifier into both kinds of MLflow model."""
    config = LakeConfig(lake=str(directory / "lake"))
    ingest.main(["--lake", config.lake, "--max-rows", str(n_reviews)])
    clean.main(["--lake", config.lake])
    store = TableStore(get_session("bench", config), config)
    model, tokenizer = load_for_training(backbone.find(backbone.EMBEDDED), 0)
    register_with_lexical_part(store, model, tokenizer)
    pipeline = transformers.pipeline(
        "text-classification", model=model, tokenizer=plain_tokenizer()
    )
    mlflow.transformers.save_model(
        pipeline,
        str(directory / PLAIN),
        model_config=PIPELINE_OPTIONS,
        pip_requirements=["mlflow", "torch", "transformers"],
    )
    store.spark.stop()


def register_with_lexical_part(store: TableStore, model: Any, tokenizer: Tokenizer) -> None:
    """Register the encoder as challenger, with a linear part whose weights are all 1."""
    policy = classifier.Policy(MAX_TOKENS, lexical_weight=1.0)
    n_tokens = tokenizer.get_vocab_size()
    ones = np.ones(n_tokens + TrainSettings().pairs, np.float32)
    lexical = classifier.Lexical(idf=ones, weight=ones, bias=0.0, n_tokens=n_tokens)
    client = connect(store.config)
    with (
        tempfile.TemporaryDirectory() as scratch,
        runs.tracked(client, store.config, experiment="bench", params={}, tags={}),
    ):
        saved = Path(scratch) / "model"
        classifier.save(saved, model, tokenizer=tokenizer, policy=policy, lexical=lexical)
        tags = {"delta.version": "0"}
        registered = registry.register(client, NAME, directory=saved, tags=tags, card="A card.")
    row = model_row(store, registered, gold_version=0, content_hash="0" * 32)
    store.merge(OPS_MODELS, row)


def ours(directory: Path) -> Callable[[], Any]:
    """Prepare jobs/score.py, with no review scored yet."""
    lake = directory / "lake"
    shutil.rmtree(lake / "gold" / "scores", ignore_errors=True)
    get_session("bench", LakeConfig(lake=str(lake)))
    return lambda: score.main(["--lake", str(lake), "--model", "challenger", "--rerun"])


def spark_udf(directory: Path) -> Callable[[], Any]:
    """Prepare mlflow.pyfunc.spark_udf over the flavour `transformers`, one partition per core."""
    lake = LakeConfig(lake=str(directory / "lake"))
    store = TableStore(get_session("bench", lake), lake)
    target = directory / "udf-scores"
    shutil.rmtree(target, ignore_errors=True)

    def score_all() -> None:
        predict = mlflow.pyfunc.spark_udf(
            store.spark,
            str(directory / PLAIN),
            result_type="label string, score double",
            env_manager="local",
        )
        reviews = store.read(SILVER_REVIEWS).repartition(torch.get_num_threads())
        scored = reviews.select("review_id", predict(F.col("text")).alias("score"))
        scored.write.format("delta").save(str(target))

    return score_all


def pipeline(directory: Path) -> Callable[[], Any]:
    """Prepare a Hugging Face pipeline with batches over texts in memory: no Spark, no table."""
    predict = transformers.pipeline(
        "text-classification",
        model=plain_model(),
        tokenizer=plain_tokenizer(),
        device=classifier.best_device(),
    )
    texts = _texts(directory)
    return lambda: predict(texts, **PIPELINE_OPTIONS)


def raw_torch(directory: Path) -> Callable[[], Any]:
    """Prepare the lower bound: forward passes alone, over batches that are ready and sorted."""
    tokenizer = plain_tokenizer()
    device = classifier.best_device()
    model = plain_model().eval().to(device)
    model.set_attn_implementation("sdpa")
    encoded = tokenizer(_texts(directory), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    encoded.sort(key=len)
    chunks = [encoded[start : start + BATCH_SIZE] for start in range(0, len(encoded), BATCH_SIZE)]
    batches = [
        tokenizer.pad({"input_ids": chunk}, return_tensors="pt").to(device) for chunk in chunks
    ]

    def predict_all() -> Any:
        with torch.inference_mode(), classifier.autocast(device, "auto"):
            return [model(**batch).logits.float() for batch in batches]

    return predict_all


def _texts(directory: Path) -> list[str]:
    silver = DeltaTable(directory / "lake" / "silver" / "reviews")
    texts = silver.to_pyarrow_table(columns=["text"])["text"].to_pylist()
    shuffled = np.random.default_rng(SEED).permutation(len(texts))
    return [texts[row] for row in shuffled]


# By key, the name in the table and a function that prepares one run.
PROGRAMS: dict[str, tuple[str, Callable[[Path], Callable[[], Any]]]] = {
    "udf": ("mlflow.pyfunc.spark_udf over mlflow.transformers (fp32, unsorted)", spark_udf),
    "pipeline": ("Hugging Face pipeline, texts in memory (fp32, unsorted)", pipeline),
    "torch": ("raw torch in bf16, tokenised and sorted beforehand", raw_torch),
    "ours": (OURS, ours),
}


def programs(directory: Path) -> list[Program]:
    """Return the programs; each reads the prepared directory."""
    return [Program(name, "scoring", [key, str(directory)]) for key, (name, _) in PROGRAMS.items()]


def bench(directory: Path, runs: int) -> list[str]:
    """Compare with MLflow's Spark UDF, a pipeline without Spark, and the lower bound."""
    Program("prepare", "scoring", ["prepare", str(directory), str(N_REVIEWS)]).prepare()
    medians = alternate(programs(directory), runs)
    our_seconds = medians[OURS]["seconds"]
    rows = []
    for name, figures in medians.items():
        seconds = figures["seconds"]
        per_second = N_REVIEWS / seconds
        rows.append([name, f"{seconds:.1f}", f"{per_second:.1f}", f"{seconds / our_seconds:.2f}"])
    words = f"{N_REVIEWS:,} real reviews, at most {MAX_TOKENS} tokens each. Medians of {runs} runs."
    return [words, "", *table(["", "s", "reviews/s", "relative time"], rows)]


def main(key: str, directory: Path) -> None:
    """Run one program; loading and starting are not timed."""
    _, prepare_run = PROGRAMS[key]
    print(json.dumps({"seconds": seconds_of(prepare_run(directory))}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))

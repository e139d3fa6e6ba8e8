"""Scoring: reviews as they are, up to 512 tokens each, from silver in Delta to scores in Delta.

    python -m tests.benchmarks.scoring ours DIRECTORY

DIRECTORY holds what `prepare` made: a lake, our model in its registry, and the same weights in MLflow's own flavour.
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
from tests.benchmarks.plain import MOST_TOKENS, plain_model, plain_tokenizer
from tests.benchmarks.reviews import SEED

MAX_TOKENS = MOST_TOKENS
BATCH = 32
N_REVIEWS = 2_000
OURS = "jobs/score.py"
NAME = "review_classifier"
PLAIN = "plain-model"  # the directory of the weights in MLflow's own flavour


def prepare(directory: Path, n_reviews: int) -> None:
    """Put reviews into silver, and a classifier that nothing has trained into both kinds of MLflow model."""
    lake = LakeConfig(lake=str(directory / "lake"))
    ingest.main(["--lake", lake.lake, "--max-rows", str(n_reviews)])
    clean.main(["--lake", lake.lake])
    store, client = TableStore(get_session("bench", lake), lake), connect(lake)
    model, tokenizer = load_for_training(backbone.find(backbone.EMBEDDED), 0)
    with tempfile.TemporaryDirectory() as scratch, runs.tracked(client, lake, "bench", {}, {}):
        n_tokens = tokenizer.get_vocab_size()
        ones = np.ones(n_tokens + TrainSettings().pairs, np.float32)
        parts = (
            classifier.Policy(MAX_TOKENS, lexical_weight=1.0),
            classifier.Lexical(ones, ones, 0.0, n_tokens),
        )
        classifier.save(Path(scratch) / "model", model, tokenizer, *parts)
        registered = registry.register(
            client, NAME, Path(scratch) / "model", {"delta.version": "0"}, "A card."
        )
    store.merge(OPS_MODELS, model_row(store, registered, 0, "0" * 32))
    pipeline = transformers.pipeline(
        "text-classification", model=model, tokenizer=plain_tokenizer()
    )
    mlflow.transformers.save_model(
        pipeline,
        str(directory / PLAIN),
        model_config=_OPTIONS,
        pip_requirements=["mlflow", "torch", "transformers"],
    )
    store.spark.stop()


_OPTIONS = {"batch_size": BATCH, "truncation": True, "max_length": MAX_TOKENS}


def ours(directory: Path) -> Callable[[], Any]:
    """jobs/score.py."""
    lake = str(directory / "lake")
    shutil.rmtree(
        directory / "lake" / "gold" / "scores", ignore_errors=True
    )  # as if nothing had been scored yet
    get_session("bench", LakeConfig(lake=lake))
    return lambda: score.main(["--lake", lake, "--model", "challenger", "--rerun"])


def spark_udf(directory: Path) -> Callable[[], Any]:
    """mlflow.pyfunc.spark_udf over the transformers flavour: truncation and a batch size set, a partition a core."""
    lake = LakeConfig(lake=str(directory / "lake"))
    store = TableStore(get_session("bench", lake), lake)
    target = directory / "udf-scores"
    shutil.rmtree(target, ignore_errors=True)

    def run() -> None:
        predict = mlflow.pyfunc.spark_udf(
            store.spark,
            str(directory / PLAIN),
            result_type="label string, score double",
            env_manager="local",
        )
        reviews = store.read(SILVER_REVIEWS).repartition(torch.get_num_threads())
        scored = reviews.select("review_id", predict(F.col("text")).alias("score"))
        scored.write.format("delta").save(str(target))

    return run


def pipeline(directory: Path) -> Callable[[], Any]:
    """A Hugging Face pipeline with batches over texts in memory: no Spark, no table."""
    model, tokenizer, device = plain_model(), plain_tokenizer(), classifier.best_device()
    predict = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device=device
    )
    texts = _texts(directory)
    return lambda: predict(texts, **_OPTIONS)


def raw_torch(directory: Path) -> Callable[[], Any]:
    """The limit: the forward passes alone, over batches tokenised and sorted by length beforehand."""
    tokenizer, device = plain_tokenizer(), classifier.best_device()
    model = plain_model().eval().to(device)
    model.set_attn_implementation("sdpa")
    encoded = tokenizer(_texts(directory), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    encoded.sort(key=len)
    chunks = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    batches = [
        tokenizer.pad({"input_ids": chunk}, return_tensors="pt").to(device) for chunk in chunks
    ]

    def run() -> Any:
        with torch.inference_mode(), classifier.autocast(device, "auto"):
            return [model(**batch).logits.float() for batch in batches]

    return run


def _texts(directory: Path) -> list[str]:
    silver = DeltaTable(directory / "lake" / "silver" / "reviews").to_pyarrow_table(
        columns=["text"]
    )
    texts = np.array(silver["text"].to_pylist(), dtype=object)
    return list(texts[np.random.default_rng(SEED).permutation(len(texts))])


PROGRAMS = {
    "udf": ("mlflow.pyfunc.spark_udf over mlflow.transformers (fp32, as they come)", spark_udf),
    "pipeline": ("Hugging Face pipeline, texts in memory (fp32, as they come)", pipeline),
    "torch": ("raw torch in bf16: tokenised and sorted beforehand", raw_torch),
    "ours": (OURS, ours),
}


def programs(directory: Path) -> list[Program]:
    """The programs over what was prepared."""
    return [Program(name, "scoring", [key, str(directory)]) for key, (name, _) in PROGRAMS.items()]


def bench(directory: Path, runs: int) -> list[str]:
    """Against MLflow's Spark UDF, a pipeline without Spark, and the limit."""
    Program("prepare", "scoring", ["prepare", str(directory), str(N_REVIEWS)]).prepare()
    timed = alternate(programs(directory), runs)
    ours = timed[OURS]["seconds"]
    rows = [
        [
            name,
            f"{one['seconds']:.1f}",
            f"{N_REVIEWS / one['seconds']:.1f}",
            f"{one['seconds'] / ours:.2f}",
        ]
        for name, one in timed.items()
    ]
    words = f"{N_REVIEWS:,} reviews as they are, at most {MAX_TOKENS} tokens each; medians of {runs} runs."
    return [words, "", *table(["", "s", "reviews/s", "times ours"], rows)]


def main(key: str, directory: Path) -> None:
    """Run one program; what comes before it, loads and starts, is not timed."""
    print(json.dumps({"seconds": seconds_of(PROGRAMS[key][1](directory))}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))

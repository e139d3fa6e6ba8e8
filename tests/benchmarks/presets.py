"""Quality per minute: jobs/train.py on all packaged reviews, with several settings.

python -m tests.benchmarks.presets LAKE --max-tokens 128
"""

import json
import sys
from pathlib import Path

from jobs import clean, curate, ingest, train
from pipelines import cli
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.tracking import registry
from pipelines.tracking.store import connect
from pipelines.train.settings import PRESETS, n_frozen_layers
from pipelines.train.tokens import predict_policy
from tests.benchmarks.compare import Figures, Program, seconds_of, table

FLAGS = {
    "64 tokens": ["--max-tokens", "64"],
    "default": [],
    "`--preset best`": ["--preset", "best"],
}
METRICS = (
    "blended_valid_accuracy",
    "test_accuracy",
    "test_accuracy_encoder",
    "test_accuracy_lexical",
    "test_rows",
)
N_LAYERS = 6  # of the packaged backbone


def prepare(lake: str) -> None:
    """Put all packaged reviews into gold."""
    for job in (ingest, clean, curate):
        job.main(["--lake", lake])


def programs(lake: str) -> list[Program]:
    """Return one training for each choice of settings."""
    return [Program(name, "presets", [lake, *flags]) for name, flags in FLAGS.items()]


def bench(directory: Path, _runs: int) -> list[str]:
    """Compare accuracy and minutes; one training each, since its weights are always the same."""
    lake = str(directory / "lake")
    Program("prepare", "presets", ["prepare", lake]).prepare()
    trained = {program.name: program.run() for program in programs(lake)}
    rows = [row_of(name, figures) for name, figures in trained.items()]
    any_training = next(iter(trained.values()))  # all have the same test rows and linear part
    words = (
        "Each row is one training by `jobs/train.py` on all packaged reviews. Accuracy is measured "
        f"on the validation rows and on {any_training['test_rows']:,.0f} test rows. "
        f"The linear part alone has a test accuracy of {any_training['test_accuracy_lexical']:.4f}."
    )
    heads = (
        "",
        "tokens in training / prediction",
        "trained layers",
        "epochs",
        "minutes",
        "validation accuracy",
        "test accuracy",
        "test accuracy of the encoder alone",
    )
    return [words, "", *table(heads, rows)]


def row_of(name: str, figures: Figures) -> list[str]:
    """Return the cells of one training: name, settings, minutes and three accuracies."""
    settings = cli.parse(train.TrainConfig, FLAGS[name], None, PRESETS).settings
    n_trained = N_LAYERS - n_frozen_layers(settings.freeze_layers, N_LAYERS)
    return [
        name,
        f"{settings.max_tokens} / {predict_policy(settings).max_tokens}",
        f"{n_trained} of {N_LAYERS}",
        str(settings.epochs),
        f"{figures['seconds'] / 60:.1f}",
        f"{figures['blended_valid_accuracy']:.4f}",
        f"{figures['test_accuracy']:.4f}",
        f"{figures['test_accuracy_encoder']:.4f}",
    ]


def main(lake: str, flags: list[str]) -> None:
    """Train, and print the seconds and the logged metrics; Spark starts before the clock does."""
    get_session("bench", LakeConfig(lake=lake))
    seconds = seconds_of(lambda: train.main(["--lake", lake, "--rerun", *flags]))
    client = connect(LakeConfig(lake=lake))
    model_version = registry.resolve(client, "review_classifier", "challenger")
    run = client.get_run(str(model_version.run_id))
    print(json.dumps({"seconds": seconds} | {name: run.data.metrics[name] for name in METRICS}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2:])

"""Quality per minute: jobs/train.py on all packaged reviews, with other settings.

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
from tests.benchmarks.compare import Program, seconds_of, table

TRIED = {
    "64 tokens": ["--max-tokens", "64"],
    "default": [],
    "`--preset best`": ["--preset", "best"],
}
N_LAYERS = 6  # of the packaged backbone


def prepare(lake: str) -> None:
    """All packaged reviews in gold."""
    for job in (ingest, clean, curate):
        job.main(["--lake", lake])


def programs(lake: str) -> list[Program]:
    """A training for each choice of settings."""
    return [Program(name, "presets", [lake, *flags]) for name, flags in TRIED.items()]


def bench(directory: Path, _runs: int) -> list[str]:
    """Accuracy against minutes; each once, since a training takes minutes and gives the same weights every time."""
    lake = str(directory / "lake")
    Program("prepare", "presets", ["prepare", lake]).prepare()
    trained = {program.name: program.run() for program in programs(lake)}
    rows = [
        [name, *described(TRIED[name]), f"{one['seconds'] / 60:.1f}"]
        + [
            f"{one[figure]:.4f}"
            for figure in ("blended_valid_accuracy", "test_accuracy", "test_accuracy_encoder")
        ]
        for name, one in trained.items()
    ]
    one = next(iter(trained.values()))
    words = (
        f"All packaged reviews by `jobs/train.py`, each trained once; accuracy on the validation rows, and on "
        f"{one['test_rows']:,.0f} held-out rows. The linear part alone: {one['test_accuracy_lexical']:.4f}."
    )
    heads = ("", "tokens learned from / read", "layers trained", "epochs", "minutes")
    return [words, "", *table((*heads, "validation", "held out", "of the encoder alone"), rows)]


def described(flags: list[str]) -> list[str]:
    """The settings that the table shows."""
    settings = cli.parse(train.TrainConfig, flags, None, PRESETS).settings
    n_trained = N_LAYERS - n_frozen_layers(settings.freeze_layers, N_LAYERS)
    tokens = f"{settings.max_tokens} / {predict_policy(settings).max_tokens}"
    return [tokens, f"{n_trained} of {N_LAYERS}", str(settings.epochs)]


def main(lake: str, flags: list[str]) -> None:
    """Train and say what came of it; the session stands before the clock starts."""
    get_session("bench", LakeConfig(lake=lake))
    seconds = seconds_of(lambda: train.main(["--lake", lake, "--rerun", *flags]))
    client = connect(LakeConfig(lake=lake))
    run = client.get_run(str(registry.resolve(client, "review_classifier", "challenger").run_id))
    parts = ("test_accuracy_encoder", "test_accuracy_lexical")
    names = ("blended_valid_accuracy", "test_accuracy", *parts, "test_rows")
    print(json.dumps({"seconds": seconds} | {name: run.data.metrics[name] for name in names}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2:])

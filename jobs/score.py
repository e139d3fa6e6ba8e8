"""Score the reviews that a model version has not scored yet.

    spark-submit --properties-file spark-defaults.conf jobs/score.py --lake lake --model champion

Reads   silver.reviews, gold.scores, ops.models, the registered model
Writes  gold.scores, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.lake.config import LakeConfig
from pipelines.tracking.scoring import Scoring
from schemas import GOLD_SCORES, OPS_MODELS, OPS_RUNS, SILVER_REVIEWS


@dataclass(frozen=True)
class ScoreConfig:
    """Flags of this job."""

    scoring: Scoring = group(Scoring)
    full: bool = flag("look for unscored reviews among all reviews", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Resolve the model once, verify it, score the unscored reviews, add one row per review."""
    config = cli.parse(ScoreConfig, argv, __doc__)
    # Imported after the flags: --help needs none of it, and a finished run needs no MLflow.
    from functools import partial

    from pipelines import score
    from pipelines.lake.tables import open_lake
    from pipelines.tracking import aliases
    from pipelines.tracking.workers import verified_model

    scoring = config.scoring
    name, tables = scoring.model_name, (SILVER_REVIEWS, GOLD_SCORES, OPS_MODELS, OPS_RUNS)
    store = open_lake("score", config.lake, tables)
    version = aliases.version_number(config.lake, name, scoring.model)
    open_model = partial(verified_model, store, name, version)
    score.run(store, config, name, version, scoring.tasks, open_model)


if __name__ == "__main__":
    program.run(main)

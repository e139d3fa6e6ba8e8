"""The flags that choose the registered model that scores, for the batch job and the stream."""

from dataclasses import dataclass

from pipelines import flag_rules
from pipelines.cli import flag
from pipelines.flag_rules import MODEL_VERSION, between
from pipelines.tracking.names import CHAMPION, MODEL_NAME


@dataclass(frozen=True)
class Scoring:
    """Which model scores, and in how many tasks."""

    model: str = flag(
        "alias or version number of the registered model",
        CHAMPION,
        must_be=MODEL_VERSION,
    )
    model_name: str = flag("registered model", MODEL_NAME, must_be=flag_rules.MODEL_NAME)
    tasks: int = flag(
        "parallel Spark tasks, each with its own copy of the model; 0 = one per core",
        0,
        must_be=between(0, 10_000),
    )

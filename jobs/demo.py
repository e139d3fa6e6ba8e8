"""Run the job `pipeline` of databricks.yml on the packaged reviews, then print a summary.

    python jobs/demo.py --lake lake
    python jobs/demo.py --lake lake-quick --max-rows 2000

Reads   the packaged reviews and backbone
Writes  every table of the lake, an MLflow run, a registered model
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag
from pipelines.errors import GateRefusedError
from pipelines.flag_rules import PATH, between
from pipelines.lake.config import LakeConfig
from pipelines.quoting import quoted


@dataclass(frozen=True)
class DemoConfig:
    """Flags of this job."""

    lake: str = flag(
        "local directory that holds tables, models and landing files",
        "lake",
        must_be=PATH,
    )
    max_rows: int = flag(
        "reviews to take, evenly spread over the file; 0 = all 25,000",
        0,
        must_be=between(0),
    )

    def __post_init__(self) -> None:
        # Raises ValueError for a directory that Spark cannot use. A URI needs a landing directory.
        if not LakeConfig(lake=self.lake, landing="landing").is_local:
            raise ValueError(f"--lake must be a local directory, got {quoted(self.lake)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run every stage that is not done yet and print the summary. Returns the exit code.

    With --max-rows, a refusal by the gate is not a failure of the demo.
    """
    config = cli.parse(DemoConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark and MLflow.
    from pipelines import demo
    from pipelines.lake.tables import open_lake
    from pipelines.tracking.store import connect

    started_s = time.monotonic()
    store = open_lake("demo", LakeConfig(lake=config.lake))
    versions_before = demo.versions_of(store)
    code = demo.run("pipeline", {}, config.lake, config.max_rows)
    is_refused = code == GateRefusedError.exit_code
    if is_refused:  # there is no champion, so show the challenger's scores
        code = demo.run("score", {"model": "challenger"}, config.lake, config.max_rows) or code
    if code not in (0, GateRefusedError.exit_code):
        return code
    if demo.versions_of(store) == versions_before:
        program.show("", demo.NOTHING_NEW)
    program.show("", f"[{time.monotonic() - started_s:3.0f} s] done", "")
    summary = demo.summary(store, connect(store.config), config.max_rows, is_refused)
    program.show(*summary.split("\n"), "", *demo.NEXT_STEPS.format(lake=config.lake).split("\n"))
    return 0 if config.max_rows else code


if __name__ == "__main__":
    program.run(main)

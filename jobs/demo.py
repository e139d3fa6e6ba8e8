"""Run every stage on the packaged reviews in one process, then say what came of it.

    python jobs/demo.py --lake lake
    python jobs/demo.py --lake lake-quick --max-rows 2000

Reads   the packaged reviews and backbone
Writes  every table of the lake, an MLflow run, a registered model
"""

import runpy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import cli, registry
from pipelines.cli import flag
from pipelines.demo import TOO_FEW, stages, summary, table_versions
from pipelines.errors import GateRefusedError
from pipelines.session import LakeConfig, get_session
from pipelines.tables import TableStore

JOBS = Path(__file__).parent


@dataclass(frozen=True)
class DemoConfig:
    """Flags of this job."""

    lake: str = flag("local directory that holds tables, models and landing files", "lake")
    max_rows: int = flag("reviews to take, evenly spread over the file; 0 = all 25,000", 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stages in order and print the summary."""
    config = cli.parse(DemoConfig, argv, __doc__)
    lake = LakeConfig(lake=config.lake)
    started_s = time.monotonic()
    store = TableStore(get_session("demo", lake), lake)
    before = table_versions(store)
    refusal: GateRefusedError | None = None
    for name, job_argv in stages(config.lake, config.max_rows):
        cli.log.info("\n[%3.0f s] %s %s", time.monotonic() - started_s, name, " ".join(job_argv))
        job = runpy.run_path(str(JOBS / f"{name}.py"))
        try:
            job["main"]([*job_argv, "--model", "challenger"] if name == "score" and refusal else job_argv)
        except GateRefusedError as error:
            cli.log.error("%s", error)
            refusal = error
    print(f"\n[{time.monotonic() - started_s:3.0f} s] done\n")
    if config.max_rows:
        print(TOO_FEW.format(n=config.max_rows) + "\n")
    print(summary(store, registry.connect(lake), config.lake, before))
    if refusal and not config.max_rows:
        raise refusal


if __name__ == "__main__":
    cli.run(main)

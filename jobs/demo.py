"""Run the bundle's pipeline on the packaged reviews in one process, then say what came of it.

    python jobs/demo.py --lake lake
    python jobs/demo.py --lake lake-quick --max-rows 2000

Reads   the packaged reviews and backbone
Writes  every table of the lake, an MLflow run, a registered model
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import bundle, cli, registry, runner
from pipelines.cli import flag
from pipelines.demo import TOO_FEW, summary, table_versions, variables
from pipelines.errors import GateRefusedError
from pipelines.graph import job_of
from pipelines.session import LakeConfig, get_session
from pipelines.tables import TableStore


@dataclass(frozen=True)
class DemoConfig:
    """Flags of this job."""

    lake: str = flag("local directory that holds tables, models and landing files", "lake")
    max_rows: int = flag("reviews to take, evenly spread over the file; 0 = all 25,000", 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bundle's job `pipeline` and print the summary; the exit code is the job's, but few reviews may fail."""
    config = cli.parse(DemoConfig, argv, __doc__)
    lake = LakeConfig(lake=config.lake)
    started_s = time.monotonic()
    store = TableStore(get_session("demo", lake), lake)
    before = table_versions(store)
    code = run("pipeline", config, {})
    if code == GateRefusedError.exit_code:  # there is no champion; its scores are worth a look all the same
        code = run("score", config, {"model": "challenger"}) or code
    print(f"\n[{time.monotonic() - started_s:3.0f} s] done\n")
    if config.max_rows:
        print(TOO_FEW.format(n=config.max_rows) + "\n")
    if code in (0, GateRefusedError.exit_code):
        print(summary(store, registry.connect(lake), config.lake, before))
    if code and not (config.max_rows and code == GateRefusedError.exit_code):
        sys.exit(code)


def run(name: str, config: DemoConfig, parameters: dict[str, str]) -> int:
    """Run a job of the bundle in this process; its exit code."""
    lake = str(LakeConfig(lake=config.lake).lake_path)  # absolute: the runner takes paths from the checkout's root
    definition = bundle.resolved(bundle.LOCAL, variables(lake, config.max_rows))
    job = job_of(definition, name)
    done = bundle.run_local(definition, job, parameters, runner.in_process, resume=False)
    print("\n".join(runner.summary(job, done)))
    return runner.exit_code(job, done)


if __name__ == "__main__":
    cli.run(main)

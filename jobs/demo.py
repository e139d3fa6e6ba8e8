"""Run the bundle's pipeline on the packaged reviews in one process, then say what came of it.

    python jobs/demo.py --lake lake
    python jobs/demo.py --lake lake-quick --max-rows 2000

Reads   the packaged reviews and backbone
Writes  every table of the lake, an MLflow run, a registered model
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import bundle, cli, finished, registry, runner
from pipelines.cli import flag
from pipelines.demo import NEXT_STEPS, NOTHING_NEW, TOO_FEW, summary, table_versions, variables
from pipelines.errors import GateRefusedError
from pipelines.finished import Finished
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
    started_s = time.monotonic()
    lake = LakeConfig(lake=config.lake)
    # Absolute: the runner takes paths from the checkout's root.
    definition = bundle.resolved(bundle.LOCAL, variables(str(lake.lake_path), config.max_rows))
    done = finished.recall(lake)
    if done and done.state == finished.state_of(definition, lake):
        print(f"{NOTHING_NEW} Reviews, backbone, code, tables and aliases are as the last demo left them.")
    else:
        done = run_all(definition, lake, config.max_rows)
        if done.said:
            finished.note(lake, done)
    print(f"\n[{time.monotonic() - started_s:3.0f} s] done\n")
    if done.said:
        print(f"{done.said}\n\n{NEXT_STEPS.format(lake=config.lake)}")
    if done.exit_code:
        sys.exit(done.exit_code)


def run_all(definition: Mapping[str, Any], lake: LakeConfig, max_rows: int) -> Finished:
    """Run the demo's stages; there is nothing to say of the lake where one of them has failed."""
    store = TableStore(get_session("demo", lake), lake)
    versions = table_versions(store)
    code = run(definition, "pipeline", {})
    if code == GateRefusedError.exit_code:  # there is no champion; its scores are worth a look all the same
        code = run(definition, "score", {"model": "challenger"}) or code
    if code not in (0, GateRefusedError.exit_code):
        return Finished({}, code, "")
    state = finished.state_of(definition, lake)  # before the summary: it may say more than that state, never less
    if table_versions(store) == versions:
        print(f"\n{NOTHING_NEW}")
    said = summary(store, registry.connect(lake))
    return Finished(state, 0, f"{TOO_FEW.format(n=max_rows)}\n\n{said}") if max_rows else Finished(state, code, said)


def run(definition: Mapping[str, Any], name: str, parameters: dict[str, str]) -> int:
    """Run a job of the bundle in this process; its exit code."""
    job = job_of(definition, name)
    done = bundle.run_local(definition, job, parameters, runner.in_process, resume=False)
    print("\n".join(runner.summary(job, done)))
    return runner.exit_code(job, done)


if __name__ == "__main__":
    cli.run(main)

"""Run the bundle's pipeline on the packaged reviews in one process, then say what came of it.

    python jobs/demo.py --lake lake
    python jobs/demo.py --lake lake-quick --max-rows 2000

Reads   the packaged reviews and backbone
Writes  every table of the lake, an MLflow run, a registered model, and a note of it, landing/runs/demo.json
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import cli, finished, program
from pipelines.bundle import __main__ as bundle
from pipelines.bundle import runner
from pipelines.bundle.graph import job_of
from pipelines.cli import flag
from pipelines.demo import NEXT_STEPS, NOTHING_NEW, summary, variables
from pipelines.errors import GateRefusedError
from pipelines.finished import Finished
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from pipelines.tracking.names import MODEL_NAME
from pipelines.tracking.store import connect


@dataclass(frozen=True)
class DemoConfig:
    """Flags of this job."""

    lake: str = flag("local directory that holds tables, models and landing files", "lake")
    max_rows: int = flag("reviews to take, evenly spread over the file; 0 = all 25,000", 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the bundle's job `pipeline`, or find it done; print the summary. Few reviews may fail without exit code."""
    config = cli.parse(DemoConfig, argv, __doc__)
    started_s = time.monotonic()
    lake = LakeConfig(lake=config.lake)
    definition = bundle.resolved(bundle.LOCAL, variables(str(lake.lake_path), config.max_rows))
    inputs = finished.inputs_of(definition, lake)
    done = finished.recall(lake)
    if done and done.state == inputs | finished.left_in(lake, MODEL_NAME):
        print(
            f"{NOTHING_NEW} All is as the last demo noted it in {finished.FILE} of the lake's landing directory."
        )
    else:
        done = run_all(definition, lake, config.max_rows, inputs)
        if done.state:
            finished.note(lake, done)
    print(f"\n[{time.monotonic() - started_s:3.0f} s] done\n")
    if done.said:
        print(f"{done.said}\n\n{NEXT_STEPS.format(lake=config.lake)}")
    if done.exit_code:
        sys.exit(done.exit_code)


def run_all(
    definition: Mapping[str, Any], lake: LakeConfig, max_rows: int, inputs: Mapping[str, str]
) -> Finished:
    """Run the demo's stages; there is nothing to say of the lake where one of them has failed."""
    store = TableStore(get_session("demo", lake), lake)
    before = finished.left_in(lake, MODEL_NAME)
    code = run(definition, "pipeline", {})
    if (
        code == GateRefusedError.exit_code
    ):  # there is no champion; its scores are worth a look all the same
        code = run(definition, "score", {"model": "challenger"}) or code
    if code not in (0, GateRefusedError.exit_code):
        return Finished({}, code, "")
    state = finished.state_of(store, inputs, before, MODEL_NAME, is_refused=code != 0)
    if before.items() <= state.items():
        print(f"\n{NOTHING_NEW}")
    said = summary(store, connect(lake), max_rows, is_refused=code != 0)
    return Finished(state, 0 if max_rows else code, said)


def run(definition: Mapping[str, Any], name: str, parameters: dict[str, str]) -> int:
    """Run a job of the bundle in this process; its exit code."""
    job = job_of(definition, name)
    done = bundle.run_local(definition, job, parameters, runner.in_process, resume=False)
    print("\n".join(runner.summary(job, done)))
    return runner.exit_code(job, done)


if __name__ == "__main__":
    program.run(main)

"""The jobs of databricks.yml, run on this machine: the same graph, the same arguments.

python -m pipelines.bundle run pipeline                            every task by spark-submit
python -m pipelines.bundle run pipeline --in-process --resume      in one JVM, from where it failed
python -m pipelines.bundle run pipeline --target dev --plan        what the cloud would be told
python -m pipelines.bundle check                                   the definition, for every target
"""

import getpass
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import cli, program
from pipelines.bundle import faults, runner
from pipelines.bundle.graph import Job, job_of
from pipelines.bundle.resolve import load, variables_of
from pipelines.bundle.runner import TaskResult
from pipelines.cli import argument, flag
from pipelines.errors import InputError
from pipelines.provenance import ROOT

log = logging.getLogger("reviewlake")
DEFINITION = ROOT / "databricks.yml"
PREFIX = "BUNDLE_VAR_"
LOCAL = "local"  # the one target whose tables are directories


@dataclass(frozen=True)
class BundleConfig:
    """Flags of the runner."""

    command: str = argument("run a job, or check the definition", choices=("run", "check"))
    job: str = argument("a job of databricks.yml", "")
    target: str = flag("target of databricks.yml", LOCAL)
    param: tuple[str, ...] = flag("a job parameter; may be given again for others", ())
    var: tuple[str, ...] = flag("a variable of databricks.yml; may be given again for others", ())
    plan: bool = flag("print what would run, and run nothing", False)
    in_process: bool = flag(
        "run all tasks in one process and one JVM, not each by spark-submit", False
    )
    resume: bool = flag("run only what failed, or was not reached, in the run before", False)
    user: str = flag("whom ${workspace.current_user…} names; default the login", "")

    def __post_init__(self) -> None:
        if self.command == "run" and not self.job:
            raise ValueError("run needs a job: python -m pipelines.bundle run pipeline")
        if self.command == "run" and self.target != LOCAL and not self.plan:
            raise ValueError(
                f"--target {self.target}: its tables are in a workspace. Pass --plan to see what would run there, "
                f"or run it there: databricks bundle run {self.job} --target {self.target}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run or check; the exit code."""
    config = cli.parse(BundleConfig, argv, __doc__)
    if config.command == "check":
        return report_faults(faults.examine(DEFINITION))
    parameters = named("param", config.param)
    definition = resolved(config.target, named("var", config.var), config.user)
    job = job_of(definition, config.job)
    require_declared(job, parameters)
    if config.plan:
        for line in runner.plan(job, parameters):
            print(line)
        return 0
    execute = runner.in_process if config.in_process else runner.submitted
    done = run_local(definition, job, parameters, execute, config.resume)
    print("\n".join(runner.summary(job, done)))
    return runner.exit_code(job, done)


def resolved(target: str, variables: Mapping[str, str], user: str = "") -> dict[str, Any]:
    """The definition for a target; variables are also taken from BUNDLE_VAR_…, as the CLI takes them."""
    exported = {
        name: os.environ[PREFIX + name]
        for name in variables_of(DEFINITION)
        if PREFIX + name in os.environ
    }
    return load(DEFINITION, target, {**exported, **variables}, user or getpass.getuser())


def run_local(
    definition: Mapping[str, Any],
    job: Job,
    parameters: Mapping[str, str],
    execute: runner.Execute,
    resume: bool,
) -> dict[str, TaskResult]:
    """Run a job's tasks here, and keep beside the lake what became of them, for --resume."""
    place = definition["variables"]["landing"] or f"{definition['variables']['lake']}/landing"
    file = ROOT / place / "runs" / f"{job.name}.json"
    before = runner.load_state(file) if resume else {}
    return runner.run_job(
        ROOT, job, parameters, execute, before, lambda done: runner.save_state(file, done)
    )


def require_declared(job: Job, parameters: Mapping[str, str]) -> None:
    """Raise InputError for a --param that the job does not have."""
    if unknown := sorted(set(parameters) - set(job.parameters)):
        has = ", ".join(job.parameters) or "none"
        raise InputError(
            f"--param {unknown[0]}: expected a parameter of job {job.name}, which has {has}."
        )


def named(flag_name: str, given: Iterable[str]) -> dict[str, str]:
    """name=value texts as a mapping."""
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, equals, _ in pairs if not equals]:
        raise InputError(f"--{flag_name} must be name=value, got {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def report_faults(faults: Iterable[str]) -> int:
    """Print each fault; 2 where there is one."""
    found = list(faults)
    for fault in found:
        print(fault)
    if found:
        log.error("InputError: %s: %d faults, listed above.", DEFINITION.name, len(found))
        return InputError.exit_code
    return 0


if __name__ == "__main__":
    program.show_log()
    sys.exit(program.attempt(main, None))

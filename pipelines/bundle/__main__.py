"""Run the jobs of databricks.yml on this machine, in the same order and with the same arguments.

python -m pipelines.bundle run pipeline                            every task by spark-submit
python -m pipelines.bundle run pipeline --in-process --resume      in one JVM, from where it failed
python -m pipelines.bundle run pipeline --target dev --plan        show what Databricks would run
python -m pipelines.bundle check                                   check all targets, run nothing
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.bundle import check, runner
from pipelines.bundle.graph import Job, job_of
from pipelines.bundle.resolve import DEFINITION, LOCAL, definition_for
from pipelines.cli import argument, flag
from pipelines.errors import InputError
from pipelines.flag_rules import NAME
from pipelines.quoting import quoted

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class BundleConfig:
    """Flags of the runner."""

    command: str = argument("run a job, or check the definition", choices=("run", "check"))
    job: str = argument("name of a job in databricks.yml", "", must_be=NAME)
    target: str = flag("target of databricks.yml", LOCAL, must_be=NAME)
    param: tuple[str, ...] = flag("parameter of the job; may be given several times", ())
    var: tuple[str, ...] = flag("variable of databricks.yml; may be given several times", ())
    plan: bool = flag("show what would run, and run nothing", False)
    in_process: bool = flag(
        "run all tasks in this process and one JVM, instead of each by spark-submit", False
    )
    resume: bool = flag("run only tasks that failed or did not run in the last run", False)
    user: str = flag(
        "value of ${workspace.current_user.userName}; default: your login", "", must_be=NAME
    )

    def __post_init__(self) -> None:
        if self.command == "run" and not self.job:
            raise ValueError("run needs a job: python -m pipelines.bundle run pipeline")
        if self.command == "run" and self.target != LOCAL and not self.plan:
            raise ValueError(
                f"--target {self.target}: its tables are in a workspace. Pass --plan to see what "
                "would run there, or run it there: "
                f"databricks bundle run {self.job} --target {self.target}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job or check the definition. Returns the exit code."""
    config = cli.parse(BundleConfig, argv, __doc__)
    if config.command == "check":
        return report_faults(check.faults_of(DEFINITION))
    parameters = named("param", config.param)
    definition = definition_for(config.target, named("var", config.var), config.user)
    job = job_of(definition, config.job)
    require_declared(job, parameters)
    if config.plan:
        program.show(*runner.plan(job, parameters))
        return 0
    execute = runner.in_process if config.in_process else runner.submitted
    results = runner.run_local(definition, job, parameters, execute, resume=config.resume)
    program.show(*runner.summary(job, results))
    return runner.exit_code(job, results)


def require_declared(job: Job, parameters: Mapping[str, str]) -> None:
    """Raise InputError for a --param that the job does not declare."""
    if unknown := sorted(set(parameters) - set(job.parameters)):
        names = ", ".join(job.parameters) or "none"
        raise InputError(
            f"--param {unknown[0]}: no parameter of job {job.name}, which has {names}. "
            "Pass one of them."
        )


def named(flag_name: str, given: Iterable[str]) -> dict[str, str]:
    """Return texts of the form NAME=VALUE as a mapping."""
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--{flag_name} must be NAME=VALUE, got {quoted(text)}")
        values[name] = value
    return values


def report_faults(faults: Iterable[str]) -> int:
    """Print each fault and return the exit code: 2 if there is one."""
    lines = list(faults)
    if not lines:
        return 0
    program.show(*lines)
    log.error("InputError: %s: %d faults, listed above.", DEFINITION.name, len(lines))
    return InputError.exit_code


if __name__ == "__main__":
    program.run(main)

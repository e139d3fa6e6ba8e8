"""Faults of databricks.yml that `check` and the rules find; needs no Spark and no workspace."""

import textwrap
from pathlib import Path

import pytest

from pipelines.bundle import resolve
from tests.rules.bundle_faults import examine

DEFINITION = """
    bundle: {name: small}
    variables: {lake: {default: lake}}
    resources:
      jobs:
        pipeline:
          name: pipeline
          parameters: [{name: rows, default: "5"}]
          environments: [{environment_key: wheel, spec: {environment_version: "5"}}]
          tasks:
            - task_key: count
              environment_key: wheel
              spark_python_task:
                python_file: jobs/count.py
                parameters: [--rows, "{{job.parameters.rows}}"]
            - task_key: look
              depends_on: [{task_key: count}]
              environment_key: wheel
              spark_python_task:
                python_file: jobs/look.py
                parameters: ["{{tasks.count.values.n}}", "${var.lake}"]
    targets: {local: {}, dev: {mode: development}}
"""
REFUSED_COUNT = "task count: jobs/count.py refuses its arguments: "
LOOK_PLACE = "resources.jobs.pipeline.tasks[1].spark_python_task.parameters[1]"
WAITS = "depends_on: [{task_key: count}]"
COUNT = """
    from dataclasses import dataclass
    from pipelines.bundle import task_values
    from pipelines.cli import flag

    @dataclass(frozen=True)
    class CountConfig:
        rows: int = flag("rows", 1)

        def __post_init__(self):
            if self.rows < 1:
                raise ValueError(f"--rows must be 1 or more, got {self.rows}")

    def main(argv=None):
        task_values.set_value("n", 1)
"""
LOOK = """
    from dataclasses import dataclass
    from pipelines.cli import argument

    @dataclass(frozen=True)
    class LookConfig:
        n: str = argument("what was counted")
        lake: str = argument("where")
"""


def faults(directory: Path, **changes: str) -> list[str]:
    """Faults of the small definition with some of its text replaced: old=new in pairs."""
    text = DEFINITION
    if changes:
        assert changes["old"] in text
        text = text.replace(changes["old"], changes["new"])
    (directory / "jobs").mkdir(exist_ok=True)
    for name, program in (("count", COUNT), ("look", LOOK)):
        (directory / "jobs" / f"{name}.py").write_text(textwrap.dedent(program))
    (directory / "databricks.yml").write_text(textwrap.dedent(text))
    return list(examine(directory / "databricks.yml"))


def test_the_definition_of_this_repository_has_no_fault() -> None:
    assert list(examine(resolve.DEFINITION)) == []


def test_a_sound_definition_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "jobs/count.py",
            "jobs/cuont.py",
            "task count: jobs/cuont.py does not exist. Correct python_file.",
        ),
        ("--rows,", "--row,", f"{REFUSED_COUNT}unrecognized arguments: --row"),
        ('default: "5"', 'default: "0"', f"{REFUSED_COUNT}--rows must be 1 or more, got 0"),
        (
            'default: "5"',
            "default: many",
            f"{REFUSED_COUNT}--rows must be a whole number, -2147483647..2147483647, got 'many'",
        ),
        (
            ', "${var.lake}"',
            "",
            "jobs/look.py refuses its arguments: the following arguments are r",
        ),
        (
            "parameters.rows",
            "parameters.row",
            "task count: {{job.parameters.row}}: expected a parameter of the job (rows) or",
        ),
        (
            "job.parameters.rows}}",
            "rows}}",
            "task count: {{rows}}: expected a parameter of the job (rows) or a task value",
        ),
        (
            "job.parameters.rows}}",
            "job.run_id}}",
            "task count: {{job.run_id}}: expected a parameter of the job (rows) or a task",
        ),
        (
            "values.n}}",
            "values.m}}",
            "{{tasks.count.values.m}}: task count does not set it with task_values.set_value.",
        ),
        (
            WAITS,
            "max_retries: 1",
            "task look: {{tasks.count.values.n}}: task count is not upstream. Add it to depends",
        ),
        (
            WAITS,
            "depends_on: [{task_key: look}]",
            "tasks depend on each other: look -> look. Remove on",
        ),
        (
            WAITS,
            "depends_on: [{task_key: x}]",
            "task look: depends on the task x, which does not exist.",
        ),
        ("${var.lake}", "${var.lakes}", f"{LOOK_PLACE}: Interpolation key 'var.lakes' not found."),
        (
            "environment_key: wheel, spec",
            "environment_key: egg, spec",
            "environment_key: expected one of egg, found wheel",
        ),
    ],
)
def test_each_fault_is_named_for_each_target(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    lines = faults(tmp_path, old=old, new=new)
    for target in ("local", "dev"):
        of_target = [line for line in lines if line.startswith(f"target {target}")]
        assert any(expected in line for line in of_target), lines


def test_a_key_that_the_bundle_schema_lacks_is_named_with_its_place(tmp_path: Path) -> None:
    lines = faults(tmp_path, old="environment_key: wheel\n", new="enviroment_key: wheel\n")
    place = "resources.jobs.pipeline.tasks[0].enviroment_key"
    assert lines[0] == f"{place}: no key of the bundle's schema. Correct its spelling."

"""Deploy databricks.yml with the real Databricks CLI to a fake workspace on loopback.

    python -m tests.bundle.bundle_check            # compare all arguments with bundle_argv.json
    python -m tests.bundle.bundle_check --write    # replace bundle_argv.json

The CLI works in a copy of the tracked files, with its own home directory and configuration.

Reads   databricks.yml, jobs/, the wheel's sources
Writes  nothing; with --write tests/bundle_argv.json
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import cli, program
from pipelines.cli import flag
from pipelines.errors import IntegrityError, SetupError
from tests.support.fake_workspace import FakeWorkspace

ROOT = Path(__file__).resolve().parents[2]
ARGV = ROOT / "tests" / "bundle_argv.json"
TARGETS = ("local", "dev", "staging", "prod")
SERVICE_PRINCIPAL = "00000000-0000-4000-8000-000000000001"
CALL_TIMEOUT_S = 300
WHEEL = re.compile(r"\.whl(\[\w+\])?$")  # a wheel, perhaps with an extra
PARAMETERS = "job.parameters"  # key, beside the tasks, of a job's parameters and their defaults
Argv = dict[str, dict[str, dict[str, Any]]]  # target, job, task


@dataclass(frozen=True)
class BundleCheckConfig:
    """Flags of this check."""

    write: bool = flag("write tests/bundle_argv.json instead of comparing with it", False)


@dataclass(frozen=True)
class Bundle:
    """The CLI, the directory in which it works, the workspace it connects to, and a target."""

    binary: Path
    directory: Path
    workspace: FakeWorkspace
    target: str

    def run(self, *words: str, exits: int = 0) -> str:
        """Run `databricks bundle …` and return its output.

        Raises IntegrityError with that output if the exit code is not `exits`.
        """
        command = [str(self.binary), "bundle", *words, "--target", self.target]
        environment = environment_of(os.environ, self.workspace.url, self.directory.parent)
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT_S,
        )
        if done.returncode != exits:
            lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines()]
            output = " | ".join(line for line in lines if line)
            raise IntegrityError(
                f"bundle {' '.join(words)}, target {self.target}: expected exit {exits}, "
                f"found {done.returncode}: {output}"
            )
        return done.stdout + done.stderr if exits else done.stdout


def main(argv: Sequence[str] | None = None) -> None:
    """Validate and deploy all targets, destroy them again, and compare the tasks' arguments."""
    config = cli.parse(BundleCheckConfig, argv, __doc__)
    binary = find_binary(os.environ)
    created: Argv = {}
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as scratch, FakeWorkspace() as workspace:
            directory = copied(ROOT, Path(scratch) / "bundle")
            created[target] = checked(Bundle(binary, directory, workspace, target))
    if config.write:
        ARGV.write_text(as_text(created), encoding="utf-8")
        print(f"{ARGV.relative_to(ROOT)}: written")
    else:
        require_equal(created, json.loads(ARGV.read_text(encoding="utf-8")))
        print(f"{ARGV.relative_to(ROOT)}: every task of every target gets these arguments")


def checked(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Validate, deploy and destroy one target, and return the arguments of its tasks."""
    step(bundle, "validate --strict", lambda bundle: bundle.run("validate", "--strict"))
    step(bundle, "deploy", lambda bundle: bundle.run("deploy"))
    step(bundle, "each wheel has the version of its build", require_versions)
    created = argv_of(summary_of(bundle), bundle.workspace)
    # Target local is deployed only for its arguments: a real workspace has no catalog without name.
    if bundle.target != "local":
        step(bundle, "a second plan finds nothing to do", require_settled)
        step(bundle, "destroy deletes data only with kept=false", require_destroyed)
    if unknown := bundle.workspace.unknown:
        raise IntegrityError(
            f"target {bundle.target}: the fake workspace does not know {', '.join(unknown)}"
        )
    return created


def find_binary(environment: Mapping[str, str]) -> Path:
    """Return the CLI that DATABRICKS_CLI names, else the one on PATH."""
    named = environment.get("DATABRICKS_CLI") or "databricks"
    binary = shutil.which(named, path=environment.get("PATH"))
    if not binary:
        raise SetupError(
            f"{named}: the Databricks CLI is not on PATH, and DATABRICKS_CLI does not name it. "
            "Install it; only this check needs it (exit 5, which make turns into 2)."
        )
    return Path(binary)


def environment_of(outer: Mapping[str, str], url: str, home: Path) -> dict[str, str]:
    """Return the CLI's environment: the user's, without Databricks settings and with a new home."""
    kept = {
        name: value
        for name, value in outer.items()
        if not name.startswith(("DATABRICKS_", "BUNDLE_VAR_"))
    }
    default = Path(outer.get("HOME", "~")).expanduser() / ".config"
    settings = outer.get("XDG_CONFIG_HOME", str(default))
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": settings,  # `uv build` reads the package index from there
        "DATABRICKS_HOST": url,
        "DATABRICKS_TOKEN": "none",
        "DATABRICKS_CONFIG_FILE": str(home / "databrickscfg"),
        "DATABRICKS_CACHE_ENABLED": "false",
        "DATABRICKS_CLI_DISABLE_TELEMETRY": "1",
        "DATABRICKS_CLI_DISABLE_UPDATE_CHECK": "1",
        "BUNDLE_VAR_service_principal": SERVICE_PRINCIPAL,
    }


def copied(root: Path, target: Path) -> Path:
    """Copy the tracked files, so that the CLI leaves no build and no state in the checkout."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def step(bundle: Bundle, name: str, do: Callable[[Bundle], object]) -> None:
    """Run one step and print a line with its name and duration."""
    started_s = time.monotonic()
    do(bundle)
    print(f"{bundle.target}: {name} ({time.monotonic() - started_s:.1f} s)", flush=True)


def require_versions(bundle: Bundle) -> None:
    """Raise IntegrityError if a job installs a wheel whose name the next build would have too."""
    wheels = re.findall(r"[^/\"]+\.whl", json.dumps(bundle.workspace.jobs))
    if not wheels or any("+" not in wheel for wheel in wheels):
        raise IntegrityError(
            f"target {bundle.target}: expected wheels with a version like 0.1.0+<time>, found "
            f"{', '.join(sorted(set(wheels))) or 'none'}. Set dynamic_version in databricks.yml."
        )


def require_settled(bundle: Bundle) -> None:
    """Raise IntegrityError if a plan right after a deployment would change anything."""
    if surplus := changes(json.loads(bundle.run("plan", "--output", "json"))):
        raise IntegrityError(
            f"second plan, target {bundle.target}: expected no change, found {', '.join(surplus)}"
        )


def changes(plan: Mapping[str, Any]) -> list[str]:
    """Return the changes of a plan as lines.

    A new wheel is no change: the version of each build contains its time.
    """
    lines = []
    for resource, planned in plan["plan"].items():
        if planned["action"] == "skip":
            continue
        fields = planned.get("changes", {}).items()
        changed = [(name, field) for name, field in fields if field["action"] != "skip"]
        names = [name for name, field in changed if not WHEEL.search(str(field.get("new")))]
        if not changed:
            names = ["as a whole"]
        lines += [f"{planned['action']} {resource} {name}" for name in names]
    return lines


def require_destroyed(bundle: Bundle) -> None:
    """Raise IntegrityError unless destroy spares data, and with kept=false leaves nothing."""
    if bundle.target != "dev":  # a developer's copy is not protected
        require_refused(bundle)
    bundle.run("destroy", "--auto-approve", "--var", "kept=false")
    if left := [*bundle.workspace.remaining, *bundle.workspace.files]:
        raise IntegrityError(
            f"destroy, target {bundle.target}: expected no resource, found {', '.join(left)}"
        )


def require_refused(bundle: Bundle) -> None:
    """Raise IntegrityError unless a destroy is refused for each resource except the jobs."""
    before = bundle.workspace.remaining
    kinds = summary_of(bundle)["resources"]
    refusal = bundle.run("destroy", "--auto-approve", exits=1)
    bare = []
    for kind in kinds.keys() - {"jobs"}:
        names = [f"{kind}.{key}" for key in kinds[kind]]
        refused = "resources.{} has lifecycle.prevent_destroy set"
        bare += [name for name in names if refused.format(name) not in refusal]
    if bare or bundle.workspace.remaining != before:
        raise IntegrityError(
            f"destroy, target {bundle.target}: expected a refusal for every resource except jobs, "
            f"and no deletion; not refused: {', '.join(sorted(bare)) or 'none'}; "
            f"remaining: {', '.join(bundle.workspace.remaining) or 'none'}"
        )


def summary_of(bundle: Bundle) -> Any:
    """Return the CLI's summary of the deployed bundle: resources with their ids, paths."""
    return json.loads(bundle.run("summary", "--output", "json"))


def argv_of(summary: Mapping[str, Any], workspace: FakeWorkspace) -> dict[str, dict[str, Any]]:
    """Return file and arguments of the tasks, and parameters of the jobs, that were created."""
    prefix = f"{summary['workspace']['file_path']}/"
    jobs = {}
    for key, job in sorted(summary["resources"]["jobs"].items()):
        created = workspace.jobs[job["id"]]
        entries = {}
        for task in created["tasks"]:
            if "spark_python_task" in task:
                script = task["spark_python_task"]
                entries[task["task_key"]] = {
                    "file": script["python_file"].removeprefix(prefix),
                    "argv": script.get("parameters", []),
                }
        parameters = created.get("parameters", [])
        entries[PARAMETERS] = {entry["name"]: entry["default"] for entry in parameters}
        jobs[key] = entries
    return jobs


def as_text(argv: Argv) -> str:
    """Return JSON with one line per task, so that a diff shows which task changed."""
    target_texts = []
    for target, jobs in argv.items():
        job_texts = []
        for job, tasks in jobs.items():
            lines = [f"   {json.dumps(key)}: {json.dumps(task)}" for key, task in tasks.items()]
            job_texts.append(f"  {json.dumps(job)}: {{\n" + ",\n".join(lines) + "\n  }")
        target_texts.append(f" {json.dumps(target)}: {{\n" + ",\n".join(job_texts) + "\n }")
    return "{\n" + ",\n".join(target_texts) + "\n}\n"


def require_equal(created: Argv, written: Argv) -> None:
    """Raise IntegrityError with the first task whose arguments differ from the file."""
    created_tasks = flattened(created)
    written_tasks = flattened(written)
    for name in sorted(created_tasks.keys() | written_tasks.keys()):
        if created_tasks.get(name) != written_tasks.get(name):
            raise IntegrityError(
                f"{name}: expected {written_tasks.get(name)}, found {created_tasks.get(name)}. "
                "If intended, run python -m tests.bundle.bundle_check --write and commit."
            )


def flattened(argv: Argv) -> dict[str, Any]:
    """Return the tasks by one name made of target, job and task."""
    flat = {}
    for target, jobs in argv.items():
        for job, tasks in jobs.items():
            for key, task in tasks.items():
                flat[f"target {target}, job {job}, task {key}"] = task
    return flat


if __name__ == "__main__":
    program.run(main)

"""Hold databricks.yml against the real Databricks CLI and a workspace on loopback.

    python -m tests.bundle.bundle_check            # every target, arguments against bundle_argv.json
    python -m tests.bundle.bundle_check --write    # write bundle_argv.json anew

The CLI works in a copy of the tracked files, with a home and a configuration of its own.

Reads   databricks.yml, jobs/, the wheel's sources
Writes  nothing; with --write tests/bundle_argv.json
"""

import json
import os
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
PARAMETERS = "job.parameters"  # beside a job's tasks: its parameters with their defaults
Argv = dict[str, dict[str, dict[str, Any]]]  # target, job, task


@dataclass(frozen=True)
class BundleCheckConfig:
    """Flags of this check."""

    write: bool = flag("write tests/bundle_argv.json instead of comparing with it", False)


@dataclass(frozen=True)
class Bundle:
    """The CLI, the copy that it works in, and the workspace that it talks to."""

    binary: Path
    directory: Path
    workspace: FakeWorkspace
    target: str

    def run(self, *words: str, exits: int = 0) -> str:
        """Stdout of `databricks bundle …`; IntegrityError, with the CLI's words, where it exits otherwise."""
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
    """Validate all targets, take those that are deployed through their whole life, compare the arguments."""
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
    """Take one target through its life, and return the arguments of its tasks."""
    step(bundle, "validate --strict", lambda bundle: bundle.run("validate", "--strict"))
    step(bundle, "deploy", lambda bundle: bundle.run("deploy"))
    created = argv_of(summary_of(bundle), bundle.workspace)
    # Target local is deployed for its arguments alone: no real workspace has a catalog without name.
    if bundle.target != "local":
        step(bundle, "a second plan finds nothing to do", require_settled)
        step(bundle, "destroy spares what holds data, until told not to", require_destroyed)
    if unknown := bundle.workspace.unknown:
        raise IntegrityError(
            f"target {bundle.target}: the fake workspace does not know {', '.join(unknown)}"
        )
    return created


def find_binary(environment: Mapping[str, str]) -> Path:
    """The CLI that DATABRICKS_CLI names, or else the one on PATH."""
    named = environment.get("DATABRICKS_CLI") or "databricks"
    binary = shutil.which(named, path=environment.get("PATH"))
    if not binary:
        raise SetupError(
            f"{named}: expected the Databricks CLI on PATH or named by DATABRICKS_CLI, found none. Install it, or do "
            "without: nothing else needs it (exit 5, which make turns into 2)."
        )
    return Path(binary)


def environment_of(outer: Mapping[str, str], url: str, home: Path) -> dict[str, str]:
    """What the CLI sees: nothing of the user's Databricks settings, all of what `uv build` needs."""
    kept = {
        name: value
        for name, value in outer.items()
        if not name.startswith(("DATABRICKS_", "BUNDLE_VAR_"))
    }
    default = Path(outer.get("HOME", "~")).expanduser() / ".config"
    settings = outer.get("XDG_CONFIG_HOME", str(default))
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": settings,  # where uv is told of an index
        "DATABRICKS_HOST": url,
        "DATABRICKS_TOKEN": "none",
        "DATABRICKS_CONFIG_FILE": str(home / "databrickscfg"),
        "DATABRICKS_CACHE_ENABLED": "false",
        "DATABRICKS_CLI_DISABLE_TELEMETRY": "1",
        "DATABRICKS_CLI_DISABLE_UPDATE_CHECK": "1",
        "BUNDLE_VAR_service_principal": SERVICE_PRINCIPAL,
    }


def copied(root: Path, target: Path) -> Path:
    """A copy of the tracked files as they are now, so that no build or state is left beside the real ones."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def step(bundle: Bundle, name: str, do: Callable[[Bundle], object]) -> None:
    """Do it, and print one line with its name and time."""
    started_s = time.monotonic()
    do(bundle)
    print(f"{bundle.target}: {name} ({time.monotonic() - started_s:.1f} s)", flush=True)


def require_settled(bundle: Bundle) -> None:
    """Raise IntegrityError if a plan right after a deployment would change anything."""
    if surplus := changes(json.loads(bundle.run("plan", "--output", "json"))):
        raise IntegrityError(
            f"second plan, target {bundle.target}: expected no change, found {', '.join(surplus)}"
        )


def changes(plan: Mapping[str, Any]) -> list[str]:
    """What a plan would do, without new wheels: each build has a new time, which dev makes part of the version."""
    lines = []
    for resource, planned in plan["plan"].items():
        if planned["action"] == "skip":
            continue
        fields = planned.get("changes", {}).items()
        changed = [(name, field) for name, field in fields if field["action"] != "skip"]
        names = [name for name, field in changed if not str(field.get("new")).endswith(".whl")]
        if not changed:
            names = ["as a whole"]
        lines += [f"{planned['action']} {resource} {name}" for name in names]
    return lines


def require_destroyed(bundle: Bundle) -> None:
    """Raise IntegrityError unless what holds data withstands a destroy, and nothing is left after one that is meant."""
    if bundle.target != "dev":  # a developer's copy may go
        require_refused(bundle)
    bundle.run("destroy", "--auto-approve", "--var", "kept=false")
    if left := [*bundle.workspace.left, *bundle.workspace.files]:
        raise IntegrityError(
            f"destroy, target {bundle.target}: expected nothing to be left, found {', '.join(left)}"
        )


def require_refused(bundle: Bundle) -> None:
    """Raise IntegrityError unless a destroy is refused for the sake of each resource that is no job, and leaves all."""
    before = bundle.workspace.left
    kinds = summary_of(bundle)["resources"]
    refusal = bundle.run("destroy", "--auto-approve", exits=1)
    bare = []
    for kind in kinds.keys() - {"jobs"}:
        names = [f"{kind}.{key}" for key in kinds[kind]]
        refused = "resources.{} has lifecycle.prevent_destroy set"
        bare += [name for name in names if refused.format(name) not in refusal]
    if bare or bundle.workspace.left != before:
        raise IntegrityError(
            f"destroy, target {bundle.target}: expected prevent_destroy on everything that holds "
            f"data, found none for {', '.join(sorted(bare))}; left: {', '.join(bundle.workspace.left)}"
        )


def summary_of(bundle: Bundle) -> Any:
    """What the CLI says of the bundle as deployed: its resources with their ids, its paths."""
    return json.loads(bundle.run("summary", "--output", "json"))


def argv_of(summary: Mapping[str, Any], workspace: FakeWorkspace) -> dict[str, dict[str, Any]]:
    """File and arguments of every task that runs one, and the job's parameters, as jobs/create told the workspace."""
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
    """JSON with one line a task, so that a diff shows which task changed."""
    target_texts = []
    for target, jobs in argv.items():
        job_texts = []
        for job, tasks in jobs.items():
            lines = [f"   {json.dumps(key)}: {json.dumps(task)}" for key, task in tasks.items()]
            job_texts.append(f"  {json.dumps(job)}: {{\n" + ",\n".join(lines) + "\n  }")
        target_texts.append(f" {json.dumps(target)}: {{\n" + ",\n".join(job_texts) + "\n }")
    return "{\n" + ",\n".join(target_texts) + "\n}\n"


def require_equal(created: Argv, written: Argv) -> None:
    """Raise IntegrityError naming the first task whose arguments are not those that are written down."""
    created_tasks = flattened(created)
    written_tasks = flattened(written)
    for name in sorted(created_tasks.keys() | written_tasks.keys()):
        if created_tasks.get(name) != written_tasks.get(name):
            raise IntegrityError(
                f"{name}: expected {written_tasks.get(name)}, found {created_tasks.get(name)}. "
                "If it is meant: python -m tests.bundle.bundle_check --write, commit."
            )


def flattened(argv: Argv) -> dict[str, Any]:
    """Target, job and task as one name."""
    flat = {}
    for target, jobs in argv.items():
        for job, tasks in jobs.items():
            for key, task in tasks.items():
                flat[f"target {target}, job {job}, task {key}"] = task
    return flat


if __name__ == "__main__":
    program.run(main)

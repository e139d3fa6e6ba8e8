"""bundle_check without the Databricks CLI: the fake workspace and the comparisons. No Spark."""

import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import IntegrityError
from tests.bundle.bundle_check import (
    ARGV,
    PARAMETERS,
    ROOT,
    TARGETS,
    Bundle,
    as_text,
    changes,
    copied,
    environment_of,
    require_equal,
    require_versions,
)
from tests.support.fake_workspace import USER, FakeWorkspace

UC = "/api/2.1/unity-catalog"


@pytest.fixture
def workspace() -> Iterator[FakeWorkspace]:
    with FakeWorkspace() as running:
        yield running


def ask(
    workspace: FakeWorkspace, method: str, path: str, body: dict[str, Any] | None = None
) -> tuple[int, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(workspace.url + path, data=content, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_without_the_cli_the_check_says_so_in_one_line_and_exits_5(tmp_path: Path) -> None:
    outer = {name: value for name, value in os.environ.items() if name != "DATABRICKS_CLI"}
    for named in ({}, {"DATABRICKS_CLI": ""}, {"DATABRICKS_CLI": str(tmp_path / "databricks")}):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bundle.bundle_check"],
            cwd=ROOT,
            env=outer | {"PATH": str(tmp_path)} | named,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (done.returncode, done.stdout) == (5, "")
        assert re.fullmatch(
            r"SetupError: \S*databricks: the Databricks CLI is not on PATH, .*\n", done.stderr
        )


def test_the_workspace_keeps_created_resources_and_forgets_deleted_ones(
    workspace: FakeWorkspace,
) -> None:
    bronze = {"catalog_name": "c", "name": "bronze"}
    assert ask(workspace, "POST", f"{UC}/schemas", bronze)[0] == 200
    assert ask(workspace, "POST", f"{UC}/schemas", bronze)[0] == 409
    landing = {"catalog_name": "c", "schema_name": "bronze", "name": "landing"}
    assert ask(workspace, "POST", f"{UC}/volumes", landing)[0] == 200
    assert ask(workspace, "POST", f"{UC}/volumes", landing | {"schema_name": "silver"})[0] == 404
    _, created = ask(workspace, "POST", "/api/2.2/jobs/create", {"name": "pipeline", "tasks": []})
    assert workspace.jobs[str(created["job_id"])] == {"name": "pipeline", "tasks": []}
    _, job = ask(workspace, "GET", f"/api/2.2/jobs/get?job_id={created['job_id']}")
    assert job["creator_user_name"] == USER
    assert workspace.remaining == ["job pipeline", "schema c.bronze", "volume c.bronze.landing"]
    ask(workspace, "POST", "/api/2.2/jobs/delete", {"job_id": created["job_id"]})
    ask(workspace, "DELETE", f"{UC}/volumes/c.bronze.landing")
    assert workspace.remaining == ["schema c.bronze"]
    assert ask(workspace, "GET", f"{UC}/volumes/c.bronze.landing")[0] == 404
    assert workspace.unknown == []


def test_the_workspace_keeps_files_grants_and_permissions(workspace: FakeWorkspace) -> None:
    url = "/api/2.0/workspace"
    file_url = f"{url}-files/import-file/Workspace/x/state.json"
    ask(workspace, "POST", f"{file_url}?overwrite=false", {"n": 1})
    _, status = ask(workspace, "GET", f"{url}/get-status?path=/Workspace/x")
    assert status["object_type"] == "DIRECTORY"
    exported = ask(workspace, "GET", f"{url}/export?path=/Workspace/x/state.json")
    assert exported == (200, {"n": 1})
    assert ask(workspace, "POST", file_url, {})[0] == 409
    ask(workspace, "POST", f"{url}/delete", {"path": "/Workspace/x", "recursive": True})
    assert (workspace.files, workspace.folders) == ({}, {"/Workspace"})
    change = {"principal": "readers", "add": ["SELECT"], "remove": ["ALL_PRIVILEGES"]}
    _, granted = ask(workspace, "PATCH", f"{UC}/permissions/schema/c.gold", {"changes": [change]})
    assert granted == {
        "privilege_assignments": [{"principal": "readers", "privileges": ["SELECT"]}]
    }
    entry = {"group_name": "readers", "permission_level": "CAN_VIEW"}
    ask(workspace, "PUT", "/api/2.0/permissions/jobs/1", {"access_control_list": [entry]})
    assert ask(workspace, "GET", "/api/2.0/permissions/jobs/1")[1]["access_control_list"] == [
        {
            "group_name": "readers",
            "all_permissions": [{"permission_level": "CAN_VIEW", "inherited": False}],
        }
    ]


def test_an_unknown_call_gets_a_404_and_is_listed(
    workspace: FakeWorkspace,
) -> None:
    status, answer = ask(workspace, "GET", "/api/2.0/lakeview/dashboards?page=1")
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert workspace.unknown == ["GET /api/2.0/lakeview/dashboards"]


def test_only_a_new_wheel_may_differ_in_a_second_plan() -> None:
    wheel = {
        "action": "update",
        "old": "/a/reviewlake-0.1.0+1.whl",
        "new": "/a/reviewlake-0.1.0+2.whl",
    }
    extra = {"action": "update", "new": "/a/reviewlake-0.1.0+2.whl[model]"}
    timeout = {"action": "update", "new": 5}
    update = "update jobs.score timeout_seconds"
    same = {"action": "skip", "reason": "empty", "new": []}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"action": "skip", "changes": {"owner": {"action": "skip"}}}, []),
        ({"action": "update", "changes": {"tasks[0].libraries[0].whl": wheel, "email": same}}, []),
        ({"action": "update", "changes": {"environments[0].spec.dependencies[0]": extra}}, []),
        ({"action": "update", "changes": {"timeout_seconds": timeout, "whl": wheel}}, [update]),
        ({"action": "create"}, ["create jobs.score as a whole"]),
        ({"action": "delete"}, ["delete jobs.score as a whole"]),
    ]
    for planned, expected in cases:
        assert changes({"plan": {"jobs.score": planned}}) == expected


def test_a_wheel_without_the_version_of_its_build_is_refused(
    workspace: FakeWorkspace, tmp_path: Path
) -> None:
    bundle = Bundle(tmp_path / "databricks", tmp_path, workspace, "prod")
    for wheels, words in (
        ([], "found none"),
        (["a/x-0.1.0+17-py3-none-any.whl", "a/x-0.1.0-py3-none-any.whl[model]"], "x-0.1.0-py3"),
    ):
        workspace.jobs["1"] = {"environments": [{"spec": {"dependencies": wheels}}]}
        with pytest.raises(IntegrityError, match=rf"target prod: .*{words}"):
            require_versions(bundle)
    workspace.jobs["1"] = {"tasks": [{"libraries": [{"whl": "a/x-0.1.0+17-py3-none-any.whl"}]}]}
    require_versions(bundle)


def test_the_first_task_with_different_arguments_is_named_with_both() -> None:
    written = {"dev": {"score": {"clean": {"file": "jobs/clean.py", "argv": ["--lake", "lake"]}}}}
    require_equal(written, json.loads(as_text(written)))
    other = {"dev": {"score": {"clean": {"file": "jobs/clean.py", "argv": []}}}}
    message = (
        r"target dev, job score, task clean: expected .*'--lake', 'lake'.*, found .*\[\].*--write"
    )
    with pytest.raises(IntegrityError, match=message):
        require_equal(other, written)
    with pytest.raises(
        IntegrityError, match=r"target dev, job score, task clean: expected None, found"
    ):
        require_equal(written, {})


def test_the_cli_sees_none_of_the_users_databricks_settings() -> None:
    outer = {
        "DATABRICKS_TOKEN": "secret",
        "BUNDLE_VAR_catalog": "mine",
        "HOME": "/home/u",
        "PATH": "/bin",
    }
    seen = environment_of(outer, "http://127.0.0.1:1", Path("/scratch"))
    assert "secret" not in seen.values()
    assert "BUNDLE_VAR_catalog" not in seen
    assert (seen["HOME"], seen["PATH"], seen["XDG_CONFIG_HOME"]) == (
        "/scratch",
        "/bin",
        "/home/u/.config",
    )


def test_the_copy_holds_the_tracked_files_as_they_are(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "from")], check=True)
    for name in ("jobs/clean.py", "untracked.py", "gone.py"):
        (tmp_path / "from" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "from" / name).write_text("before", encoding="utf-8")
    subprocess.run(["git", "add", "jobs/clean.py", "gone.py"], cwd=tmp_path / "from", check=True)
    (tmp_path / "from" / "jobs" / "clean.py").write_text("now", encoding="utf-8")
    (tmp_path / "from" / "gone.py").unlink()
    copy = copied(tmp_path / "from", tmp_path / "to")
    assert [path.relative_to(copy).as_posix() for path in copy.rglob("*.*")] == ["jobs/clean.py"]
    assert (copy / "jobs" / "clean.py").read_text(encoding="utf-8") == "now"


def test_the_file_of_arguments_holds_every_target_and_job() -> None:
    written = json.loads(ARGV.read_text(encoding="utf-8"))
    assert tuple(written) == TARGETS
    for target, jobs in written.items():
        assert set(jobs) == {"pipeline", "score", "stream", "reproduce", "vacuum"}
        tasks = [job[key] for job in jobs.values() for key in job if key != PARAMETERS]
        for task in tasks:
            assert (ROOT / task["file"]).is_file()
            assert task["argv"][:8:2] == ["--catalog", "--schemas", "--landing", "--lake"]
            assert (task["argv"][1] == "") == (target == "local")
    assert as_text(written) == ARGV.read_text(encoding="utf-8")


def test_the_bundle_pins_the_same_packages_as_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bundle = (ROOT / "databricks.yml").read_text(encoding="utf-8")
    packages = re.findall(r"[\w-]+==[\w.]+", re.sub(r"#.*", "", bundle))
    assert len(packages) == 2
    assert set(packages) <= set(project["optional-dependencies"]["local"])

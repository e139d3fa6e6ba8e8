"""What a wheel of ours holds, and that the lock and the names are safe to install."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).parent / "uv"
    command = [str(uv), "build", "--quiet", "--wheel", "--out-dir", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(target.glob("reviewlake-*.whl"))


def test_the_wheel_holds_pipelines_and_schemas_with_their_sql_and_no_job(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == {"pipelines", "schemas"}
    assert {
        "schemas/lineage.sql",
        "schemas/current_scores.sql",
        "pipelines/lake/log4j2.properties",
    } <= set(names)


def test_the_wheel_can_not_be_uploaded_by_mistake(wheel: Path) -> None:
    metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    assert "Private :: Do Not Upload" in zipfile.ZipFile(wheel).read(metadata).decode()


@pytest.mark.parametrize("package", ["pipelines", "schemas"])
def test_no_other_distribution_owns_our_package_names(package: str) -> None:
    owners = importlib.metadata.packages_distributions()
    assert owners["torch"] == [
        "torch"
    ]  # the look-up sees what is installed; an editable install lists no package
    assert set(owners.get(package, [])) <= {"reviewlake"}


def test_every_locked_requirement_has_a_version_and_a_hash() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE).strip())
    assert len(entries) > 80
    assert [
        entry.split()[0]
        for entry in entries
        if "==" not in entry.split()[0] or "--hash=sha256:" not in entry
    ] == []


def test_the_lock_names_no_index() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_holds_every_dependency_of_the_project() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower()
    extras = [name for group in PROJECT["optional-dependencies"].values() for name in group]
    wanted = {re.split(r"[<>=[]", name)[0].lower() for name in [*PROJECT["dependencies"], *extras]}
    assert {name for name in wanted if f"\n{name}==" not in "\n" + lock} == set()


def test_the_session_asks_for_the_jar_of_the_delta_wheel_that_is_pinned() -> None:
    from pipelines.lake.jars import DELTA_VERSION

    assert f"delta-spark=={DELTA_VERSION}" in PROJECT["optional-dependencies"]["local"]

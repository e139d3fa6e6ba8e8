"""The wheel has the right files; lock and package names are safe. Needs a subprocess (uv)."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from pipelines.tracking.names import MODEL_NAME

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


def test_the_wheel_cannot_be_uploaded_by_mistake(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
    assert "Private :: Do Not Upload" in archive.read(metadata).decode()


def test_the_code_of_a_stage_has_the_same_hash_in_a_checkout_a_wheel_and_a_zip(
    wheel: Path, tmp_path: Path
) -> None:
    program = (
        "import pipelines; from pipelines.stage_code import code_sha256\n"
        "print(pipelines.__file__, *[code_sha256(stage, {'gold.reviews'}) for stage in "
        "('ingest', 'clean', 'curate', 'train', 'promote', 'score', 'reproduce', 'vacuum')])"
    )

    def hashes(place: Path) -> list[str]:
        command = [sys.executable, "-P", "-c", program]
        environment = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        file, *sha256s = done.stdout.split()
        assert file.startswith(str(place))
        return sha256s

    installed = tmp_path / "site-packages"
    zipfile.ZipFile(wheel).extractall(installed)
    for source in installed.rglob("*.py"):  # as git checks files out on Windows
        source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    expected = hashes(ROOT)
    assert len(set(expected)) == 8
    assert hashes(installed) == expected
    assert hashes(wheel) == expected  # Python imports from a wheel as from any zip


@pytest.mark.parametrize("package", ["pipelines", "schemas"])
def test_no_other_distribution_owns_our_package_names(package: str) -> None:
    owners = importlib.metadata.packages_distributions()
    assert owners["torch"] == ["torch"]  # the look-up works; an editable install has no entry
    assert set(owners.get(package, [])) <= {"reviewlake"}


def test_every_locked_requirement_has_a_version_and_a_hash() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    without_comments = re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE)
    entries = re.split(r"\n(?=\S)", without_comments.strip())
    assert len(entries) > 80
    pinned = re.compile(r"\S+==\S+.*--hash=sha256:", re.DOTALL)
    assert [entry.split()[0] for entry in entries if not pinned.match(entry)] == []


def test_the_lock_names_no_index() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_holds_every_dependency_of_the_project() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower()
    extras = [name for group in PROJECT["optional-dependencies"].values() for name in group]
    dependencies = [*PROJECT["dependencies"], *extras]
    names = {re.split(r"[<>=[]", dependency)[0].lower() for dependency in dependencies}
    assert "torch" in names
    assert {name for name in names - {"reviewlake"} if f"\n{name}==" not in "\n" + lock} == set()


def test_the_session_uses_the_jar_of_the_pinned_delta_wheel() -> None:
    from pipelines.lake.jars import delta_for

    assert f"delta-spark=={delta_for().version}" in PROJECT["optional-dependencies"]["local"]


def test_the_bundle_and_mlflows_project_use_the_default_model_name_of_the_code() -> None:
    bundle = yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))
    local = bundle["targets"]["local"]["variables"]
    registered = bundle["resources"]["registered_models"]
    assert local["model"] == local["experiment"] == MODEL_NAME
    assert {model["name"] for model in registered.values()} == {MODEL_NAME}
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    run = project["entry_points"]["reproduce"]["parameters"]["run"]["default"]
    assert run == f"models:/{MODEL_NAME}@champion"

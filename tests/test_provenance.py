"""The hashes of files and of our code, and the git commit, are right. Needs git, no Spark."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import provenance
from pipelines.errors import SetupError

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("content", "sha256"), [(b"abc", SHA256_OF_ABC), (b"", SHA256_OF_NOTHING)])
def test_the_hash_of_a_file_is_that_of_its_bytes(
    content: bytes, sha256: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert provenance.sha256_of(tmp_path / "file") == sha256


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make an empty directory the root of the running code."""
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.setattr(provenance, "ROOT", root)
    provenance.git_commit.cache_clear()
    yield root
    provenance.git_commit.cache_clear()


def git(place: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    command = ["git", "-C", str(place), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_in(place: Path) -> str:
    """Make a repository with one file and return its commit."""
    git(place, "init", "-q")
    (place / "file").write_text(place.name)
    git(place, "add", "file")
    git(place, "commit", "-qm", "first")
    return git(place, "rev-parse", "HEAD")


def test_a_checkout_has_a_commit_and_is_dirty_after_a_change(checkout: Path) -> None:
    commit = commit_in(checkout)
    assert provenance.git_commit() == commit
    assert provenance.git_is_dirty() is False
    (checkout / "untracked").touch()
    assert provenance.git_is_dirty() is True
    (checkout / "untracked").unlink()
    (checkout / "file").write_text("two")
    assert provenance.git_is_dirty() is True


def test_a_work_tree_has_the_commit_of_its_branch(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_in(checkout)
    git(checkout, "worktree", "add", "-q", "-b", "other", "../tree")
    git(checkout.parent / "tree", "commit", "-q", "--allow-empty", "-m", "second")
    monkeypatch.setattr(provenance, "ROOT", checkout.parent / "tree")  # its .git is a file
    assert provenance.git_commit() == git(checkout, "rev-parse", "other")


def test_the_commit_of_another_repository_is_never_taken(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_in(tmp_path)  # around the code, as where it was unpacked
    assert provenance.git_commit() is None
    provenance.git_commit.cache_clear()
    (checkout / ".git").mkdir()  # damaged: git would go on to the directory above
    assert provenance.git_commit() is None
    provenance.git_commit.cache_clear()
    commit = commit_in(checkout)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook of that repository
    assert provenance.git_commit() == commit


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "git is not on PATH"),
        ("", "git does not start: Exec format error"),
        ("#!/bin/sh\nexec /bin/sleep 60\n", "git has not answered in 0.5 s"),
        (
            "#!/bin/sh\nprintf 'fatal: dubious \\033[31m ownership\\nmore' >&2\nexit 128\n",
            r"git says: fatal: dubious \x1b[31m ownership",
        ),
    ],
)
def test_a_git_that_does_not_answer_leaves_the_commit_unknown_and_the_run_says_why_once(
    script: str | None,
    reason: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    commit_in(checkout)
    programs = checkout.parent / "bin"
    programs.mkdir()
    if script is not None:
        (programs / "git").write_text(script)
        (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(provenance, "GIT_WAIT_S", 0.5)
    assert [provenance.git_commit(), provenance.git_commit()] == [None, None]
    assert provenance.git_is_dirty() is None
    code = provenance.package_sha256()[:12]
    assert caplog.messages == [
        f"commit unknown: {reason}; runs are recorded without it (code {code})"
    ]


def test_a_repository_without_commits_has_none(checkout: Path) -> None:
    git(checkout, "init", "-q")
    assert provenance.git_commit() is None


def hash_of(place: Path) -> str:
    """Return the hash that a process computes which imports our code from a folder or a zip."""
    code = "from pipelines.provenance import package_sha256; print(package_sha256())"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_hash_of_the_code_is_that_of_its_sources_wherever_they_are(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in provenance.PACKAGES:
        shutil.copytree(provenance.ROOT / package, copy / package)
    archive = shutil.make_archive(str(tmp_path / "code"), "zip", copy)
    assert hash_of(copy) == hash_of(Path(archive)) == f"{provenance.package_sha256()}\n"
    with (copy / "schemas" / "gold.py").open("a") as source:
        source.write("\n")
    assert hash_of(copy) != hash_of(Path(archive))


def test_workers_with_other_code_are_refused_with_both_places() -> None:
    provenance.require_code(provenance.package_sha256(), "/driver")
    words = r"^workers: expected the driver's code 0123456789ab of /driver, found [0-9a-f]{12} of /"
    with pytest.raises(SetupError, match=words):
        provenance.require_code("0123456789abcdef", "/driver")


@pytest.mark.parametrize("given", ["", ":", ".:", ":{root}:", "{root}"])
def test_child_processes_find_our_code_first_and_nothing_by_accident_in_the_current_directory(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = str(provenance.ROOT)
    wanted = [root, str(tmp_path)] if "." in given else [root]  # "." is no accident
    assert provenance.python_path({"PYTHONPATH": given.format(root=root)}).split(":") == wanted

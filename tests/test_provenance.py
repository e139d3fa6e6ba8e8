"""A file's SHA-256, the git commit and uncommitted changes are right. Needs git, no Spark."""

import subprocess
from pathlib import Path

import pytest

from pipelines import provenance

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("content", "sha256"), [(b"abc", SHA256_OF_ABC), (b"", SHA256_OF_NOTHING)])
def test_the_hash_of_a_file_is_that_of_its_bytes(
    content: bytes, sha256: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert provenance.sha256_of(tmp_path / "file") == sha256


def test_a_checkout_has_a_commit_and_is_dirty_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() is None  # not a checkout, as in an installed wheel
    assert provenance.git_is_dirty() is None
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    provenance.git_commit.cache_clear()
    commit = provenance.git_commit()
    assert commit is not None
    assert len(commit) == 40
    assert provenance.git_is_dirty() is False
    (tmp_path / "untracked").touch()
    assert provenance.git_is_dirty() is True
    (tmp_path / "untracked").unlink()
    (tmp_path / "file").write_text("two")
    assert provenance.git_is_dirty() is True
    provenance.git_commit.cache_clear()

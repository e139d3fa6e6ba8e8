"""The next run removes what killed processes left in landing, and nothing else. Subprocesses."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake import scratch as scratch_module
from pipelines.lake.scratch import (
    OWNER,
    boot_id,
    hold_here,
    in_use,
    is_in_use,
    remove_leftovers,
    scratch,
)
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.operate.vacuum import clear_staging
from tests.support.processes import ROOT, own_environment

FUTURE_MS = 10**15
WORK = """
    import sys, time
    from pathlib import Path
    from pipelines.lake.scratch import scratch
    with scratch(Path(sys.argv[1]), "ingest") as directory:
        (directory / "records.parquet").write_text("reviews")
        print(directory, flush=True)
        time.sleep(600)
"""
SHARE = """
    import sys, time
    from pathlib import Path
    from pipelines.lake.scratch import in_use
    with in_use(Path(sys.argv[1])):
        print("shared", flush=True)
        time.sleep(600)
"""
STAGE = """
    import sys, time
    from pipelines.lake.config import LakeConfig
    from pipelines.lake.session import get_session
    from pipelines.lake.staging import staged
    from pipelines.lake.tables import TableStore
    config = LakeConfig(lake=sys.argv[1])
    store = TableStore(get_session("stage", config), config)
    with staged(store, store.spark.range(1000), "clean"):
        print("staged", flush=True)
        time.sleep(600)
"""
SWEEP = """
    import sys
    from pathlib import Path
    from pipelines.lake.scratch import remove_leftovers
    remove_leftovers(Path(sys.argv[1]))
"""


@contextmanager
def python(program: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a program, and yield it with the first line that it prints; kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        cwd=ROOT,
        env=own_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_directory_lasts_as_long_as_its_block_and_the_null_case_logs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    with scratch(tmp_path / "landing", "staging/clean") as directory:
        assert directory.parent == tmp_path / "landing" / "staging"
        assert is_in_use(directory)
        remove_leftovers(tmp_path / "landing")  # this process's own directory is in use
        assert [file.name for file in directory.iterdir()] == [OWNER]
    assert not directory.exists()
    assert caplog.messages == []


def test_the_next_run_removes_what_a_killed_process_left_and_keeps_a_living_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    with python(WORK, tmp_path) as (_, living), python(WORK, tmp_path) as (victim, left):
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        assert Path(left, "records.parquet").exists()
        with scratch(tmp_path, "ingest"):
            assert not Path(left).exists()
            assert Path(living, "records.parquet").exists()
    line = f"{tmp_path}: removed 1 directory that killed runs left behind"
    assert caplog.messages == [line]
    with scratch(tmp_path, "ingest"):  # the other process was killed too, at the end of its block
        assert not Path(living).exists()
    assert caplog.messages == [line, line]


def test_a_process_that_shares_a_directory_keeps_it_after_the_owner_was_killed(
    tmp_path: Path,
) -> None:
    with python(WORK, tmp_path) as (owner, place), python(SHARE, place) as (_, answer):
        assert answer == "shared"
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        remove_leftovers(tmp_path)
        assert Path(place, "records.parquet").exists()
    remove_leftovers(tmp_path)
    assert not Path(place).exists()
    with in_use(tmp_path):  # has no owner: nothing to share
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "", "another machine's boot ID"])
def test_what_another_machine_or_older_code_left_is_cleared_by_a_vacuum_only(
    tmp_path: Path, text: str | None
) -> None:
    directory = tmp_path / "staging" / "clean-1"
    directory.mkdir(parents=True)
    if text is not None:
        (directory / OWNER).write_text(text)
    remove_leftovers(tmp_path)
    assert directory.exists()
    clear_staging(tmp_path, before_ms=0)  # too young
    assert directory.exists()
    clear_staging(tmp_path, FUTURE_MS)
    assert not directory.exists()


def test_without_a_boot_id_nothing_is_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_module, "boot_id", lambda: "")
    (tmp_path / "ingest-1").mkdir()
    (tmp_path / "ingest-1" / OWNER).touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / "ingest-1").exists()
    assert boot_id() != ""


def test_a_vacuum_clears_killed_downloads_and_keeps_what_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "a.partial").touch()
    with scratch(tmp_path, "snapshot") as directory:
        clear_staging(tmp_path, FUTURE_MS)
        assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize(
    ("make", "is_kept"),
    [
        (os.mkfifo, False),
        (Path.mkdir, True),
        (lambda owner: owner.symlink_to("/dev/null"), True),
    ],
    ids=["fifo", "directory", "link"],
)
def test_an_owner_that_is_no_file_stops_nothing(
    tmp_path: Path, make: Callable[[Path], object], is_kept: bool
) -> None:
    directory = tmp_path / "ingest-1"
    directory.mkdir()
    make(directory / OWNER)
    with scratch(tmp_path, "ingest"):
        assert directory.exists()
    clear_staging(tmp_path, FUTURE_MS)  # removes what no process can have locked
    assert directory.exists() == is_kept


def test_a_place_that_ends_while_a_vacuum_looks_at_it_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ingest-1").mkdir()
    (tmp_path / "ingest-2").mkdir()
    removed: list[Path] = []

    def ends_first(place: Path) -> bool:
        if not removed:
            place.rmdir()
            removed.append(place)
            raise FileNotFoundError(place)
        return False

    monkeypatch.setattr(vacuum, "is_in_use", ends_first)
    clear_staging(tmp_path, FUTURE_MS)
    assert len(removed) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_directory_is_on_a_file_open_for_reading_too(tmp_path: Path) -> None:
    modes = []

    def hold(file: Path, text: str) -> Callable[[], Any] | None:
        release = hold_here(file, text)
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{number}") == str(file):
                    modes.append(fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE)
        return release

    with scratch(tmp_path, "ingest", hold):
        assert modes == [os.O_RDWR]  # NFS takes a shared lock on no other


def test_files_that_the_jvm_writes_are_kept_while_it_lives(store: TableStore) -> None:
    landing = store.config.landing_path
    with staged(store, store.spark.range(3), "clean") as rows:
        [directory] = (landing / "staging").iterdir()
        assert (directory / OWNER).read_text() == boot_id()
        command = [sys.executable, "-c", textwrap.dedent(SWEEP), str(landing)]
        subprocess.run(command, cwd=ROOT, check=True)
        remove_leftovers(landing)
        assert is_in_use(directory)
        assert rows.count() == 3
    assert list((landing / "staging").iterdir()) == []


@pytest.mark.slow
def test_files_of_a_killed_stage_are_removed_once_its_jvm_has_ended_too(tmp_path: Path) -> None:
    staging = tmp_path / "landing" / "staging"
    with python(STAGE, tmp_path) as (process, answer):
        assert answer == "staged"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert len(list(staging.glob("clean-*/rows/part-*"))) >= 1
        deadline_s = time.monotonic() + 60
        while list(staging.iterdir()) and time.monotonic() < deadline_s:
            remove_leftovers(tmp_path / "landing")
            time.sleep(0.1)
    assert list(staging.iterdir()) == []

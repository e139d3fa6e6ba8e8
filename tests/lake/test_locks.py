import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from pipelines.errors import ConflictError
from pipelines.lake import locks
from pipelines.lake.config import LakeConfig
from pipelines.lake.locks import holder_of, is_held, table_lock
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
    import json, sys, time
    from pathlib import Path
    from pipelines.lake.locks import _try_python
    release = _try_python(Path(sys.argv[1]), json.dumps({"pid": 4711, "app": "score", "since": time.time() - 90}))
    print("held" if release else "free not", flush=True)
    time.sleep(600)
"""
APPEND = """
    import sys
    from pipelines import cli
    from pipelines.lake.session import LakeConfig, get_session
    from pipelines.lake.tables import TableStore
    from schemas import GOLD_REJECTS
    program.show_log()
    lake = LakeConfig(lake=sys.argv[1], lock_wait_s=600)
    store = TableStore(get_session("writer" + sys.argv[2], lake), lake)
    for batch in range(int(sys.argv[3])):
        rows = [(f"{sys.argv[2]}-{batch}", "unlabelled")]
        store.append(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))
"""


def python(program: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def held_elsewhere(file: Path) -> Iterator["subprocess.Popen[str]"]:
    file.parent.mkdir(parents=True, exist_ok=True)
    holder = python(HOLD, file)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def is_held_seen_from_another_process(file: Path) -> bool:
    look = (
        "import sys; from pathlib import Path; from pipelines.lake.locks import is_held;"
        "print(is_held(Path(sys.argv[1])))"
    )
    answer, fault = python(look, file).communicate(timeout=60)
    assert answer in ("True\n", "False\n"), fault
    return answer == "True\n"


def test_a_lock_is_held_inside_and_free_outside_whatever_happens_inside(
    spark: SparkSession, tmp_path: Path
) -> None:
    file = tmp_path / "locks" / "gold.scores"
    assert not is_held(file)
    with (
        pytest.raises(ConflictError, match="inside"),
        table_lock(spark, file, 5),
        table_lock(spark, file, 5),
    ):  # noqa: PT012
        assert is_held_seen_from_another_process(file)
        noted = json.loads(file.read_text())
        assert (noted["pid"], noted["app"]) == (os.getpid(), spark.conf.get("spark.app.name"))
        raise ConflictError("inside")
    assert not is_held_seen_from_another_process(file)


def test_a_waiting_writer_says_for_whom_and_gives_up_in_the_end(
    spark: SparkSession,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "gold.scores"
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    words = (
        r"^gold\.scores: expected its lock within 0\.2 s, found it held by process 4711 \(score\) for 9\d s\. "
        r"Run the stage again once that one is done, or raise --lock-wait-s\.$"
    )
    with (
        held_elsewhere(file),
        caplog.at_level(logging.INFO, "reviewlake"),
        pytest.raises(ConflictError, match=words) as caught,
        table_lock(spark, file, 0.2),
    ):
        raise AssertionError("two writers at a time")
    assert caught.value.exit_code == 4
    [line] = [record.getMessage() for record in caplog.records]  # told once, not at every look
    assert line.startswith(
        "gold.scores: waiting for process 4711 (score), which has held its lock for 9"
    )
    with table_lock(spark, file, 5):  # the failed wait left nothing behind
        assert holder_of(file)[0] == f"process {os.getpid()} ({spark.conf.get('spark.app.name')})"


def test_a_killed_holder_holds_no_longer(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "gold.scores"
    with held_elsewhere(file) as holder:
        assert is_held(file)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        assert not is_held(file)
        assert (
            holder_of(file)[0] == "process 4711 (score)"
        )  # what it wrote remains, and means nothing
        with table_lock(spark, file, 5):
            assert is_held_seen_from_another_process(file)


def test_without_a_jvm_of_its_own_python_holds_the_same_lock(tmp_path: Path) -> None:
    class Connect:
        """What a Spark Connect session has of what the lock asks for."""

        class conf:  # noqa: N801
            get = staticmethod(lambda _name, _default: "connect")

    file = tmp_path / "gold.scores"
    with table_lock(Connect(), file, 5):  # type: ignore[arg-type]
        assert is_held_seen_from_another_process(file)
        assert holder_of(file)[0] == f"process {os.getpid()} (connect)"
    assert not is_held_seen_from_another_process(file)


def test_two_threads_of_one_process_take_turns(spark: SparkSession, tmp_path: Path) -> None:
    inside, seen = 0, []

    def enter() -> None:
        nonlocal inside
        for _ in range(20):
            with table_lock(spark, tmp_path / "t", 30):
                inside += 1
                seen.append(inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [1] * 80


@pytest.mark.parametrize("text", ["", "half a li", "[]", '{"pid": 1}'])
def test_a_note_that_cannot_be_read_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    assert holder_of(tmp_path / "t") == ("another process", 0.0)
    assert holder_of(tmp_path / "absent") == ("another process", 0.0)


def test_a_write_to_a_table_that_another_process_holds_is_refused_and_leaves_it_as_it_was(
    store: TableStore,
) -> None:
    rows = store.spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    store.append(GOLD_REJECTS, rows)
    hasty = TableStore(store.spark, LakeConfig(lake=store.config.lake, lock_wait_s=0))
    with held_elsewhere(store.config.lake_path / "locks" / "gold.rejects"):
        for write in (hasty.append, hasty.merge, hasty.synchronise):
            with pytest.raises(
                ConflictError,
                match=r"gold\.rejects: expected its lock within 0 s, found it held by",
            ):
                write(GOLD_REJECTS, rows)
    assert (store.version(GOLD_REJECTS), store.read(GOLD_REJECTS).count()) == (1, 1)


@pytest.mark.stress
def test_four_processes_that_append_at_once_lose_and_double_nothing(store: TableStore) -> None:
    n_writers, n_batches = 4, 100
    store.create(GOLD_REJECTS)
    writers = [python(APPEND, store.config.lake, number, n_batches) for number in range(n_writers)]
    faults = [writer.communicate(timeout=1_500)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * n_writers, faults
    table = DeltaTable(store.location(GOLD_REJECTS))  # an independent reader
    found = table.to_pyarrow_table()["review_id"].to_pylist()
    expected = {f"{number}-{batch}" for number in range(n_writers) for batch in range(n_batches)}
    assert (len(found), set(found)) == (400, expected)
    assert table.version() == 400
    assert any("waiting for process" in fault for fault in faults)  # they did meet

"""One writer per local table, across threads, processes and kills. Needs Spark, subprocesses."""

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
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from pipelines.errors import ConflictError
from pipelines.lake import locks
from pipelines.lake.config import LakeConfig
from pipelines.lake.locks import holder_of, is_held, table_lock
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS
from tests.support.processes import ROOT

HOLD = """
    import json, sys, time
    from pathlib import Path
    from pipelines.lake.locks import _try_python
    note = json.dumps({"pid": 4711, "app": "score", "since": time.time() - 90})
    release = _try_python(Path(sys.argv[1]), note)
    print("held" if release else "not held", flush=True)
    time.sleep(600)
"""
LOOK = """
    import sys
    from pathlib import Path
    from pipelines.lake.locks import is_held
    print(is_held(Path(sys.argv[1])))
"""
APPEND = """
    import sys
    from pipelines import terminal
    from pipelines.lake.config import LakeConfig
    from pipelines.lake.session import get_session
    from pipelines.lake.tables import TableStore
    from schemas import GOLD_REJECTS
    terminal.prepare()
    lake, writer, n_batches = sys.argv[1:]
    config = LakeConfig(lake=lake, lock_wait_s=600)
    store = TableStore(get_session("writer" + writer, config), config)
    for batch in range(int(n_batches)):
        rows = [(f"{writer}-{batch}", "unlabelled")]
        store.append(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))
"""


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def held_by_another_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock and calls itself process 4711 (score)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    holder = python(HOLD, file)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def is_held_as_another_process_sees_it(file: Path) -> bool:
    answer, errors = python(LOOK, file).communicate(timeout=60)
    assert answer in ("True\n", "False\n"), errors
    return answer == "True\n"


def test_a_lock_is_held_inside_its_block_and_released_even_after_an_error(
    spark: SparkSession, tmp_path: Path
) -> None:
    file = tmp_path / "locks" / "gold.scores"
    assert not is_held(file)

    def fail_inside() -> None:
        with table_lock(spark, file, 5), table_lock(spark, file, 5):
            assert is_held_as_another_process_sees_it(file)
            note = json.loads(file.read_text())
            assert (note["pid"], note["app"]) == (os.getpid(), spark.conf.get("spark.app.name"))
            raise ConflictError("inside")

    with pytest.raises(ConflictError, match="inside"):
        fail_inside()
    assert not is_held_as_another_process_sees_it(file)


def test_a_waiting_writer_names_the_holder_and_gives_up_in_the_end(
    spark: SparkSession,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "gold.scores"
    monkeypatch.setattr(locks, "POLL_S", 0.01)
    words = (
        r"^gold\.scores: expected its lock within 0\.2 s, "
        r"found it held by process 4711 \(score\) for 9\d s\. "
        r"Run the stage again once that one is done, or raise --lock-wait-s\.$"
    )
    with (
        held_by_another_process(file),
        caplog.at_level(logging.INFO, "reviewlake"),
        pytest.raises(ConflictError, match=words) as caught,
        table_lock(spark, file, 0.2),
    ):
        raise AssertionError("two writers at a time")
    assert caught.value.exit_code == 4
    [line] = [record.getMessage() for record in caplog.records]  # logged once, not per attempt
    assert line.startswith(
        "gold.scores: waiting for process 4711 (score), which has held its lock for 9"
    )
    with table_lock(spark, file, 5):  # the failed wait left nothing behind
        assert holder_of(file)[0] == f"process {os.getpid()} ({spark.conf.get('spark.app.name')})"


def test_a_killed_process_no_longer_holds_its_lock(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "gold.scores"
    with held_by_another_process(file) as holder:
        assert is_held(file)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        assert not is_held(file)
        assert holder_of(file)[0] == "process 4711 (score)"  # its note remains, without effect
        with table_lock(spark, file, 5):
            assert is_held_as_another_process_sees_it(file)


def test_without_a_jvm_of_its_own_python_holds_the_same_lock(tmp_path: Path) -> None:
    conf = SimpleNamespace(get=lambda _name, _default: "connect")
    connect_session: Any = SimpleNamespace(conf=conf)  # has no _jvm, as under Spark Connect
    file = tmp_path / "gold.scores"
    with table_lock(connect_session, file, 5):
        assert is_held_as_another_process_sees_it(file)
        assert holder_of(file)[0] == f"process {os.getpid()} (connect)"
    assert not is_held_as_another_process_sees_it(file)


def test_two_threads_of_one_process_take_turns(spark: SparkSession, tmp_path: Path) -> None:
    n_inside = 0
    counts_inside: list[int] = []

    def enter() -> None:
        nonlocal n_inside
        for _ in range(20):
            with table_lock(spark, tmp_path / "t", 30):
                n_inside += 1
                counts_inside.append(n_inside)
                time.sleep(0.002)
                n_inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts_inside == [1] * 80


@pytest.mark.parametrize("text", ["", "half a li", "[]", '{"pid": 1}'])
def test_an_unreadable_note_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    assert holder_of(tmp_path / "t") == ("another process", 0.0)
    assert holder_of(tmp_path / "absent") == ("another process", 0.0)


def test_a_write_to_a_table_that_another_process_holds_is_refused_and_leaves_it_unchanged(
    store: TableStore,
) -> None:
    rows = store.spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    store.append(GOLD_REJECTS, rows)
    impatient = TableStore(store.spark, LakeConfig(lake=store.config.lake, lock_wait_s=0))
    words = r"gold\.rejects: expected its lock within 0 s, found it held by"
    with held_by_another_process(store.config.lake_path / "locks" / "gold.rejects"):
        for write in (impatient.append, impatient.merge, impatient.synchronise):
            with pytest.raises(ConflictError, match=words):
                write(GOLD_REJECTS, rows)
    assert (store.version(GOLD_REJECTS), store.read(GOLD_REJECTS).count()) == (1, 1)


@pytest.mark.stress
def test_four_processes_that_append_at_once_lose_and_repeat_no_row(store: TableStore) -> None:
    n_writers = 4
    n_batches = 100
    store.create(GOLD_REJECTS)
    writers = [python(APPEND, store.config.lake, number, n_batches) for number in range(n_writers)]
    logs = [writer.communicate(timeout=1_500)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * n_writers, logs
    table = DeltaTable(store.config.location(GOLD_REJECTS))  # an independent reader
    review_ids = table.to_pyarrow_table()["review_id"].to_pylist()
    expected = {f"{number}-{batch}" for number in range(n_writers) for batch in range(n_batches)}
    assert (len(review_ids), set(review_ids)) == (400, expected)
    assert table.version() == 400
    assert any("waiting for process" in log for log in logs)  # the writers did wait for each other

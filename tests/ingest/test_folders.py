"""A folder is ingested file by file: each whole or not at all, each once. Most tests need Spark."""

import gzip
import logging
import os
from pathlib import Path

import pandas as pd
import pytest

from jobs import ingest as job
from pipelines.errors import ContractError, InputError, IntegrityError
from pipelines.ingest import reading
from pipelines.ingest.files import FoundFile, files_at
from pipelines.ingest.sources import Delivery
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.provenance import sha256_of
from schemas import BRONZE_REVIEWS, OPS_DELIVERIES, OPS_RUNS
from tests.support.delivered import staged_delivery

GOOD = "text,label\ngood one,1\nbad one,0\n"


def write(file: Path, content: str = GOOD) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def flags(lake: LakeConfig, *paths: Path) -> list[str]:
    given = [flag for path in paths for flag in ("--path", str(path))]
    names = ["--source", "csv", "--name", "shop", "--label-column", "label"]
    return [*names, *given, "--lake", lake.lake]


def outcomes(store: TableStore) -> list[tuple[str, str, int | None]]:
    """Return name, outcome and rows of each file in ops.deliveries, in order of time and name."""
    rows = store.read(OPS_DELIVERIES).orderBy("decided_at", "path").collect()
    return [(Path(row["path"]).name, row["outcome"], row["rows"]) for row in rows]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("a.csv", ["a.csv"]),
        ("", ["a.csv", "b.csv.gz", "deep/c.TSV"]),
        ("*.csv*", ["a.csv", "b.csv.gz"]),
        ("**/c.*", ["deep/c.TSV"]),
        ("notes.md", ["notes.md"]),  # named by itself
        ("deep/[x].csv", ["deep/[x].csv"]),  # a file of that name, not a pattern
        ("nothing.csv", ["nothing.csv"]),  # reading it says that there is none
    ],
)
def test_a_path_a_directory_and_a_pattern_name_files(
    tmp_path: Path, location: str, expected: list[str]
) -> None:
    for name in ("a.csv", "b.csv.gz", "deep/c.TSV", "notes.md", ".hidden.csv", "_tmp/d.csv"):
        write(tmp_path / name)
    if "[" in location:
        write(tmp_path / location)
    files = files_at([str(tmp_path / location)], "csv")
    assert [str(file.relative_to(tmp_path)) for file in files] == expected


def test_a_directory_or_pattern_without_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes.md")
    with pytest.raises(InputError, match=r"expected files named like \*\.csv, found none\. Corr"):
        files_at([str(tmp_path)], "csv")
    with pytest.raises(InputError, match=r"no file matches this pattern\. Correct --path\."):
        files_at([str(tmp_path / "*.csv")], "csv")


def test_files_that_are_passed_over_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    write(tmp_path / "a.csv")
    write(tmp_path / "notes.md")
    assert files_at([str(tmp_path), str(tmp_path / "a.csv")], "csv") == [tmp_path / "a.csv"]
    assert caplog.messages == [f"{tmp_path}: 1 files passed over, not named like csv"]


def test_one_bad_file_of_a_folder_stops_no_other_and_the_exit_code_is_the_worst(
    store: TableStore, lake: LakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    folder = tmp_path / "in"
    write(folder / "a.csv")
    write(folder / "bad.csv", 'text,label\nnew,1\n"open,0\n')
    write(folder / "copy_of_a.csv")
    (folder / "z.csv.gz").write_bytes(gzip.compress(b"text,label\nthird,1\n"))
    words = r"^ingest: 1 of 4 files were refused, as the lines above say; ops\.deliveries keeps"
    with pytest.raises(ContractError, match=words):
        job.main(flags(lake, folder))
    assert outcomes(store) == [
        ("a.csv", "added", 2),
        ("bad.csv", "refused", None),
        ("copy_of_a.csv", "known", 2),
        ("z.csv.gz", "added", 1),
    ]
    assert "2 files: 3 in, 3 added, 0 already there, 0 left out" in caplog.messages
    fault = "ContractError: bad.csv row 2: no closing quote before the end of the file"
    assert [line for line in caplog.messages if line.startswith(fault)] != []
    reason = store.read(OPS_DELIVERIES).where("outcome = 'refused'").collect()[0]["reason"]
    assert reason.startswith("bad.csv row 2: no closing quote before the end of the file")
    files = store.read(BRONZE_REVIEWS).select("source_file").distinct().collect()
    assert sorted(row["source_file"] for row in files) == ["a.csv", "z.csv.gz"]
    [run] = store.read(OPS_RUNS).collect()
    assert run["rows"] == {"in": 3, "added": 3, "already_there": 0, "left_out": 0}
    assert {row["batch_id"] for row in store.read(BRONZE_REVIEWS).collect()} == {run["run_key"]}
    assert list(lake.landing_path.iterdir()) == []

    # The next run reads only what is new: the mended file, and one with known bytes.
    write(folder / "bad.csv", "text,label\nnew,1\n")
    write(folder / "later.csv")
    caplog.clear()
    job.main(flags(lake, folder))
    assert outcomes(store)[4:] == [("bad.csv", "added", 1), ("later.csv", "known", 2)]
    assert "ingest: 5 files: 1 known, 1 added, 3 unchanged; ops.deliveries lists them" in (
        caplog.messages
    )
    caplog.clear()
    job.main(flags(lake, folder))
    assert caplog.messages == ["ingest: nothing new: 5 files are known; --rerun reads them"]


def test_a_folder_of_known_files_is_known_without_java_and_other_settings_read_it_again(
    store: TableStore, lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.csv", f"text,label\nreview {number},1\n")
    job.main(flags(lake, tmp_path / "in"))
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.lake.tables.get_session", lambda *_: 1 / 0)
        job.main(flags(lake, tmp_path / "in"))
    with pytest.raises(InputError, match=r"^ingest: 3 of 3 files were refused"):
        job.main([*flags(lake, tmp_path / "in"), "--label-map", "1=negative"])
    assert [outcome for _, outcome, _ in outcomes(store)] == ["added"] * 3 + ["refused"] * 3
    assert store.read(BRONZE_REVIEWS).count() == 3


def test_a_file_that_is_still_being_written_waits_and_stops_no_other(
    store: TableStore, lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    write(folder / "a.csv")
    growing = write(folder / "growing.csv", "text,label\nfirst,1\n")
    stage = reading.stage_or_refuse
    n_grown = []

    def staged_while_it_grows(
        _: object, delivery: Delivery, files: list[reading.HashedFile], at: Path
    ) -> list[reading.StagedFile]:
        with growing.open("a") as file:
            n_grown.append(file.write("second,0\n"))
        return [stage(delivery, file, at / f"{n}.parquet") for n, file in enumerate(files)]

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_staged_by_tasks", staged_while_it_grows)
        job.main(flags(lake, folder))
    assert n_grown == [9]
    assert outcomes(store) == [("a.csv", "added", 2), ("growing.csv", "waiting", None)]
    job.main(flags(lake, folder))
    assert outcomes(store)[2:] == [("growing.csv", "added", 2)]
    assert store.read(BRONZE_REVIEWS).count() == 4


def test_a_lost_outcome_of_a_file_is_an_integrity_error(
    store: TableStore, lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        write(tmp_path / "in" / f"{number}.csv", f"text,label\nreview {number},1\n")
    monkeypatch.setattr(type(store.spark), "range", lambda spark, *_: spark.sql("SELECT 0L AS id"))
    with pytest.raises(IntegrityError, match=r"an outcome for each of 2 files, found 1\. Nothing"):
        job.main(flags(lake, tmp_path / "in"))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tasks_stage_the_same_rows_as_this_process(
    store: TableStore, tmp_path: Path, kind: str
) -> None:
    texts = ['two\r\nlines, a "quote"', "é, \u2028 and \U0001f600", "NUL \0", ""]
    frame = pd.DataFrame({"text": texts, "label": [1, 0, 1, None]})
    paths = []
    for number in range(2):
        path = tmp_path / f"{number}.{kind}"
        rows = frame.assign(text=frame["text"] + str(number))
        if kind == "csv":
            rows.to_csv(path, index=False)
        elif kind == "jsonl":
            rows.to_json(path, orient="records", lines=True)
        else:
            rows.to_parquet(path)
        paths.append(path)
    bad = tmp_path / f"bad.{kind}"
    bad.write_bytes(b"\xff")
    files = [reading.HashedFile(FoundFile.at(path), sha256_of(path)) for path in (*paths, bad)]
    delivery = Delivery(kind, (str(tmp_path),), name="shop", label_column="label")
    with reading.staged_files(store, delivery, files, tmp_path / "landing") as by_tasks:
        tables = [pd.read_parquet(file.parquet) for file in by_tasks[:2]]
    for path, file, table in zip(paths, by_tasks, tables, strict=False):
        with staged_delivery(delivery, path, file.file.sha256, tmp_path / "landing") as here:
            pd.testing.assert_frame_equal(table, pd.read_parquet(here.parquet))
            assert (file.n_rows, file.meanings) == (here.n_rows, here.meanings)
            assert file.n_rows == len(texts)
    with (
        pytest.raises((ContractError, InputError)) as caught,
        staged_delivery(delivery, bad, files[2].sha256, tmp_path / "landing"),
    ):
        raise AssertionError("staged")
    assert (type(by_tasks[2].error), str(by_tasks[2].error)) == (caught.type, str(caught.value))


def test_a_file_that_may_not_be_read_is_refused_alone(
    store: TableStore, lake: LakeConfig, tmp_path: Path
) -> None:
    write(tmp_path / "in" / "a.csv")
    os.mkfifo(tmp_path / "in" / "pipe.csv")
    with pytest.raises(InputError, match=r"^ingest: 1 of 2 files were refused"):
        job.main(flags(lake, tmp_path / "in"))
    assert outcomes(store) == [("a.csv", "added", 2), ("pipe.csv", "refused", None)]


def test_a_missing_file_of_several_is_refused_alone_and_a_lone_one_leaves_no_lake(
    store: TableStore, lake: LakeConfig, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.csv"
    with pytest.raises(InputError, match=r"missing\.csv: no such file\. Correct --path\."):
        job.main(flags(lake, missing))
    assert not store.exists(OPS_DELIVERIES)
    with pytest.raises(InputError, match=r"^ingest: 1 of 2 files were refused"):
        job.main(flags(lake, write(tmp_path / "a.csv"), missing))
    assert outcomes(store) == [("a.csv", "added", 2), ("missing.csv", "refused", None)]


def test_files_are_read_again_if_their_run_was_killed_before_its_row(
    store: TableStore, lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        write(tmp_path / "in" / f"{number}.csv", f"text,label\nreview {number},1\n")
    n_killed = []

    def killed(*_: object, **__: object) -> None:
        n_killed.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.lake.ledger.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            job.main(flags(lake, tmp_path / "in"))
    assert n_killed == [1]
    job.main(flags(lake, tmp_path / "in"))
    [run] = store.read(OPS_RUNS).collect()
    assert run["rows"] == {"in": 2, "added": 0, "already_there": 2, "left_out": 0}
    assert [outcome for _, outcome, _ in outcomes(store)] == ["added"] * 2 + ["known"] * 2

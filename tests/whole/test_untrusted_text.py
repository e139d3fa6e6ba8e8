"""No error prints text from outside raw or at full length, whatever quotes it. Needs no Spark."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipelines import cli, program
from pipelines.bundle import graph, resolve
from pipelines.bundle.__main__ import named
from pipelines.cli import flag
from pipelines.errors import InputError
from pipelines.flag_rules import NAME
from pipelines.ingest import archives, fetch
from pipelines.ingest.compressed import decompressed
from pipelines.ingest.csv_reader import read_csv
from pipelines.ingest.decoding import Source
from pipelines.ingest.records import Columns
from pipelines.ingest.sources import Delivery
from pipelines.lake.config import LakeConfig
from pipelines.lake.locks import holder_of
from pipelines.lake.session import check_server
from pipelines.model import backbone, classifier
from pipelines.model.manifest import ManifestError, verify_manifest
from pipelines.operate import words
from pipelines.operate.judge import refuse_function
from pipelines.provenance import sha256_of
from tests.support.delivered import staged_delivery

STEERING = "\x1b[31m\r\n\x07\x9b\u202e\u2066\u200b"
HOSTILE = f"{STEERING}{'x' * 10_000}\udcff{STEERING}"
IN_FILES = f"{STEERING}{'x' * 10_000}{STEERING}"  # UTF-8 has no half characters
NAME_OF_FILE = f"{STEERING}{'x' * 200}"


@dataclass(frozen=True)
class Flags:
    name: str = flag("a name", "", must_be=NAME)


def raised(error: Exception) -> None:
    raise error


def archive_member(place: Path) -> None:
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        archive.writestr(f"../{IN_FILES}", b"x")
    archives.unpack(place / "a.zip", place / "unpacked")


def delivered(place: Path, source: str, content: str, **flags: Any) -> None:
    """Ingest a file up to the point where Spark would read it."""
    file = place / "r"
    file.write_text(content, encoding="utf-8", newline="")
    delivery = Delivery(source, (str(file),), name="shop", **flags)
    with staged_delivery(delivery, file, sha256_of(file), place / "landing"):
        raise AssertionError("staged")


def member_of_a_zip(place: Path) -> None:
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        archive.writestr(IN_FILES, b"")
    list(read_csv(decompressed(Source(place / "a.zip", "a.zip"), place), Columns("text")))


def lock_holder(place: Path) -> None:
    (place / "lock").write_text(json.dumps({"pid": 1, "app": IN_FILES, "since": 0}))
    raise InputError(f"held by {holder_of(place / 'lock')[0]}")


def model_file(place: Path) -> None:
    (place / NAME_OF_FILE).touch()
    classifier.load(place)


ERRORS: dict[str, Callable[[Path], Any]] = {
    "a flag's value": lambda _: cli.parse(Flags, ["--name", HOSTILE], None),
    "a flag's name": lambda _: cli.parse(Flags, [f"--{HOSTILE}"], None),
    "a lake": lambda _: cli.parse(LakeConfig, ["--lake", HOSTILE], None),
    "a variable": lambda _: named("var", [HOSTILE]),
    "a job": lambda _: graph.job_of({}, HOSTILE),
    "a target": lambda _: resolve.merged({}, HOSTILE, "databricks.yml"),
    "targets": lambda _: resolve.merged({"targets": {HOSTILE: {}}}, "dev", "databricks.yml"),
    "a server": lambda _: check_server(f"sc://[{HOSTILE}"),
    "a URL": lambda place: fetch.fetch(f"{HOSTILE}://h", "", place),
    "a URL's path": lambda place: fetch.fetch(f"https://h/{'x' * 10_000}", "", place),
    "a file": lambda place: fetch.fetch(NAME_OF_FILE, "", place),
    "a member of an archive": archive_member,
    "a member of a zip": member_of_a_zip,
    "a column of a CSV file": lambda place: delivered(place, "csv", f'"{IN_FILES}"\na\n'),
    "a key of a JSON file": lambda place: delivered(place, "jsonl", json.dumps({HOSTILE: 1})),
    "a label": lambda place: delivered(
        place, "jsonl", json.dumps({"text": "a", "label": STEERING}), label_column="label"
    ),
    "a file of a manifest": lambda place: verify_manifest(place, [(IN_FILES, 1, "0")]),
    "a file of a model": model_file,
    "a backbone": lambda place: backbone.find(str(place / NAME_OF_FILE), "http://127.0.0.1:9"),
    "a lock's note": lock_holder,
    "SQL": lambda _: words.tokens_of(HOSTILE),
    "a function in SQL": lambda _: refuse_function(["reflect" + HOSTILE]),
    "Spark": lambda _: raised(PySparkException(HOSTILE)),
    "Java": lambda _: raised(Py4JError(f"x\n: {HOSTILE}")),
    "a worker": lambda _: raised(PySparkException(f"\npipelines.errors.InputError: {HOSTILE}")),
    "MLflow": lambda _: raised(MlflowException(HOSTILE)),
    "the system": lambda _: raised(OSError(2, HOSTILE, HOSTILE)),
    "an import": lambda _: raised(ImportError(HOSTILE, name=HOSTILE)),
    "anything": lambda _: raised(InputError(HOSTILE)),
}


@pytest.mark.parametrize("quoting", ERRORS)
def test_no_error_prints_what_it_quotes_raw_or_at_full_length(
    quoting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def main(_argv: object) -> None:
        try:
            ERRORS[quoting](tmp_path)
        except (ManifestError, classifier.ModelFilesError) as error:  # as tracking.model_files does
            raise InputError(str(error)) from error

    assert program.attempt(main, []) > 0
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.isprintable(), ascii(line)
    assert len(line) <= program.MAX_LINE
    assert line.encode()
    assert r"\x1b" in line or "xxxx…xxxx" in line, "the error quotes nothing"

"""jobs/doctor.py names each fault of a lake with its fix. Needs Spark, and MLflow on sqlite."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from jobs import doctor as job
from pipelines.errors import InputError, IntegrityError, SetupError
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.frames import content_hash, one_row
from pipelines.lake.jars import delta_for
from pipelines.lake.tables import TableStore
from pipelines.operate.doctor import (
    alias_faults,
    ledger_faults,
    log_faults,
    missing_versions,
    model_faults,
)
from pipelines.tracking import registry
from pipelines.tracking.model_table import ModelRecord, model_records
from pipelines.tracking.store import connect
from schemas import GOLD_REVIEWS, OPS_MODELS, OPS_PROMOTIONS
from tests.support.registered import NAME, register_tiny
from tests.support.small_gold import train_rows

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["good film", "bad film", "so so"]


def with_a_model(store: TableStore, tmp_path: Path) -> ModelRecord:
    """Write gold.reviews versions 1 and 2, and register a model that learned from version 1."""
    for texts in (TEXTS[:2], TEXTS):
        rows = store.spark.createDataFrame([(text,) for text in texts], "text string")
        store.synchronise(GOLD_REVIEWS, train_rows(rows))
    learned_from = content_hash(store.read(GOLD_REVIEWS, 1))
    client = connect(store.config)
    register_tiny(store, client, tmp_path, TEXTS, gold_version=1, content_hash=learned_from)
    run = ledger.start("curate", store.config, {"silver.reviews": 3})
    ledger.finish(store, run, [Commit(GOLD_REVIEWS, 2, 3)], {"in": 3, "kept": 3})
    return model_records(store)[0]


def examined(store: TableStore, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the printed faults, after checking that the job's error states their number."""
    capsys.readouterr()
    message = ""
    try:
        job.main(["--lake", store.config.lake])
    except IntegrityError as error:
        message = str(error)
    lines = capsys.readouterr().out.splitlines()
    expected = f"{store.config.lake}: {len(lines)} faults, listed above." if lines else ""
    assert message == expected
    return lines


def gold_files(store: TableStore, version: int) -> list[Path]:
    log = Path(store.config.location(GOLD_REVIEWS), "_delta_log", f"{version:020}.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    directory = Path(store.config.location(GOLD_REVIEWS))
    return [directory / action["add"]["path"] for action in actions if "add" in action]


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


def forget_crc(store: TableStore) -> None:
    """Delete Hadoop's checksum files, as they would report the damage first.

    A copied lake, or one written on an object store, has none.
    """
    for crc in Path(store.config.location(GOLD_REVIEWS)).glob(".*.crc"):
        crc.unlink()


def test_a_healthy_lake_and_an_empty_lake_have_no_fault(
    store: TableStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examined(store, capsys) == []
    with_a_model(store, tmp_path)
    assert examined(store, capsys) == []


def missing_file(store: TableStore) -> None:
    gold_files(store, 1)[0].unlink()


def flipped_data_byte(store: TableStore) -> None:
    forget_crc(store)
    flip_a_byte(gold_files(store, 1)[0])


def flipped_weight(store: TableStore) -> None:
    [weights] = (store.config.lake_path / "mlflow").rglob("model.safetensors")
    flip_a_byte(weights)


def foreign_code(store: TableStore) -> None:
    [code] = (store.config.lake_path / "mlflow").rglob("classifier.py")
    (code.parent / "torch.py").write_text("")


def linked_bytecode(store: TableStore) -> None:
    [code] = (store.config.lake_path / "mlflow").rglob("classifier.py")
    (code.parent / "__pycache__").symlink_to(code.parent)


def missing_version(store: TableStore) -> None:
    Path(store.config.location(GOLD_REVIEWS), "_delta_log", f"{1:020}.json").unlink()


def unknown_version(_store: TableStore) -> None:
    client = MlflowClient()
    client.create_model_version(NAME, client.get_model_version(NAME, "1").source or "")


def rewritten_data(store: TableStore) -> None:
    """Record another content hash than the table has, as if a version had been overwritten."""
    client = MlflowClient()
    again = client.create_model_version(NAME, client.get_model_version(NAME, "1").source or "")
    changed = {"model_version": int(again.version), "content_hash": "0" * 32}
    row = store.read(OPS_MODELS).where("model_version = 1").collect()[0].asDict() | changed
    values = [row[name] for name in OPS_MODELS.column_names[:-1]]
    store.append(OPS_MODELS, one_row(store.spark, OPS_MODELS, values))
    client.set_model_version_tag(NAME, again.version, "manifest.sha256", row["manifest_sha256"])


GOLD_OF_MODEL = f"{NAME} version 1, gold.reviews version 1"
DAMAGES: dict[Callable[[TableStore], None], str] = {
    missing_file: f"{GOLD_OF_MODEL}: gold.reviews: missing data file ",
    flipped_data_byte: f"{GOLD_OF_MODEL}: part-",
    flipped_weight: f"{NAME} version 1: {NAME} version 1: ",
    foreign_code: f"{NAME} version 1: /",
    linked_bytecode: f"{NAME} version 1: /",
    missing_version: (
        "gold.reviews: its log lacks version 1. "
        "Restore it from a backup, the whole directory _delta_log."
    ),
    unknown_version: (
        f"{NAME} version 2: in the registry, but not in ops.models. Delete the version"
    ),
    rewritten_data: f"{NAME} version 3, gold.reviews version 1: content hash ",
}


def test_each_damage_is_reported_with_its_fix(store: TableStore, tmp_path: Path) -> None:
    with_a_model(store, tmp_path)
    client = connect(store.config)
    shutil.copytree(store.config.lake_path, tmp_path / "sound")
    for damage, words in DAMAGES.items():
        damage(store)
        broken = [*log_faults(store.config, GOLD_REVIEWS)]
        lake = store if broken else TableStore(store.spark, store.config)
        [line] = map(str, broken or model_faults(lake, client))
        assert line.startswith(words)
        assert line.endswith(".")
        assert TEXTS[0] not in line
        for part in ("gold", "mlflow/artifacts"):  # the registry database stays open
            shutil.rmtree(store.config.lake_path / part)
            shutil.copytree(tmp_path / "sound" / part, store.config.lake_path / part)
        for name, version in registry.live_versions(client, [NAME]) - {(NAME, 1)}:
            client.delete_model_version(name, str(version))


def test_a_missing_alias_registry_or_table_is_reported_from_the_remaining_records(
    store: TableStore, tmp_path: Path
) -> None:
    with_a_model(store, tmp_path)
    client = connect(store.config)
    assert [
        *ledger_faults(store, ledger.rows_of(store)),
        *alias_faults(store, client),
        *model_faults(store, client),
    ] == []
    promotion = (NAME, 1, "promoted", "[]", None)
    store.append(OPS_PROMOTIONS, one_row(store.spark, OPS_PROMOTIONS, promotion))
    [alias] = alias_faults(store, client)
    assert str(alias).startswith(
        f"{NAME}: alias champion is not set, but the latest decision names version 1. Run jobs/"
    )
    client.delete_registered_model(NAME)  # as a lost mlflow.db does
    [lost] = model_faults(store, client)
    assert str(lost).startswith(
        f"{NAME}: in ops.models, but the registry has no such model. Restore it from a backup"
    )
    shutil.rmtree(store.config.location(GOLD_REVIEWS))
    [missing] = ledger_faults(TableStore(store.spark, store.config), ledger.rows_of(store))
    assert str(missing).startswith(
        "gold.reviews: no such table, but the ledger recorded version 2. Restore it from a backup"
    )


HOLD = """
import sys, time
from pathlib import Path
from pipelines.lake.locks import _try_python

kept = _try_python(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""


def test_a_hanging_writer_is_reported_with_its_process(
    store: TableStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_a_model(store, tmp_path)
    file = store.config.lake_path / "locks" / "gold.reviews"
    note = json.dumps({"pid": 4711, "app": "curate", "since": time.time() - 3 * 3600})
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), note], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        [line] = examined(store, capsys)
        assert line == (
            "gold.reviews: its lock has been held by process 4711 (curate) for 3 h. "
            "End that process if it hangs; this releases the lock."
        )
    finally:
        holder.kill()
        holder.communicate()
    assert examined(store, capsys) == []  # the file is still there; nobody holds it


def test_an_unreadable_registry_is_exit_5(store: TableStore, tmp_path: Path) -> None:
    with_a_model(store, tmp_path)
    (store.config.lake_path / "mlflow" / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(
        SetupError,
        match=r"mlflow\.db: expected an MLflow store, found: .*Restore the file from a back",
    ):
        job.main(["--lake", store.config.lake])


def test_wrong_jars_are_reported_with_the_required_ones(store: TableStore, tmp_path: Path) -> None:
    (tmp_path / "delta-spark_4.0_2.13-4.0.0.jar").touch()
    words = rf"expected {', '.join(delta_for().jars)}, found delta-spark_4\.0_2\.13-4\.0\.0\.jar\."
    with pytest.raises(InputError, match=words):
        job.main(["--lake", store.config.lake, "--jars", str(tmp_path)])


@pytest.mark.timeout(120)
def test_a_java_that_is_too_old_is_exit_5(tmp_path: Path) -> None:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    process = subprocess.run(
        [sys.executable, "jobs/doctor.py", "--lake", str(tmp_path / "lake")],
        cwd=ROOT,
        env=os.environ | {"JAVA_HOME": str(tmp_path / "jdk")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (5, "")
    assert process.stderr == (
        "SetupError: java: expected Java 17 or later, found 11. Point JAVA_HOME to a newer one.\n"
    )


@pytest.mark.parametrize(
    ("present", "missing"), [([0, 1, 2], []), ([0, 3], [1, 2]), ([2, 3], [0, 1]), ([], [])], ids=str
)
def test_missing_versions_are_those_from_0_to_the_last(
    tmp_path: Path, present: list[int], missing: list[int]
) -> None:
    for version in present:
        (tmp_path / f"{version:020}.json").touch()
    (tmp_path / "00000000000000000001.checkpoint.parquet").touch()
    shutil.copy(__file__, tmp_path / "_last_checkpoint.json")
    assert missing_versions(tmp_path) == missing

"""Models in a real MLflow store: register, verify, promote, refuse, roll back. Needs Spark."""

import json
import runpy
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipelines.errors import GateRefusedError, InputError, IntegrityError, SetupError
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.promote import gate
from pipelines.promote.checks import Check, Verdict
from pipelines.tracking import model_files, model_table, registry
from pipelines.tracking.store import connect
from schemas import OPS_PROMOTIONS
from tests.support.registered import NAME, register_tiny

TEXTS = ["a good film", "a bad film", "good good", "bad bad"]
ROOT = Path(__file__).resolve().parents[2]
promote = runpy.run_path(str(ROOT / "jobs" / "promote.py"))["main"]


@pytest.fixture
def client(store: TableStore) -> MlflowClient:
    return connect(store.config)


def aliases(client: MlflowClient) -> dict[str, int]:
    return {
        alias: int(version) for alias, version in client.get_registered_model(NAME).aliases.items()
    }


def test_a_registered_model_is_the_challenger_and_has_its_manifest_in_tags_and_ops_models(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    registered = register_tiny(store, client, tmp_path, TEXTS)
    version = registry.resolve(client, NAME, "challenger")
    paths = {path for path, _, _ in registered.files}
    assert (registered.version, int(version.version)) == (1, 1)
    assert version.run_id == registered.run_id
    assert "MLmodel" in paths
    assert "artifacts/model/model.safetensors" in paths
    assert "artifacts/model/tokenizer.json" in paths
    assert [path for path in paths if path.endswith((".pkl", ".pickle", ".bin"))] == []
    assert version.tags["weights.sha256"] == registered.weights_sha256
    manifest = [tuple(file) for file in json.loads(version.tags["manifest"])]
    assert model_table.record_of(store, version).files == manifest


def test_a_verified_model_scores_text(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    register_tiny(store, client, tmp_path, TEXTS)
    model = gate.verified_model(store, client, registry.resolve(client, NAME, "1"))
    scores = model(TEXTS)
    assert list(scores.columns) == ["probability", "prediction", "is_truncated"]
    assert scores["probability"].between(0, 1).all()
    assert len(scores) == len(TEXTS)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("artifacts/model/model.safetensors", r"the manifest says \d+ bytes of SHA-256"),
        ("MLmodel", "the manifest says"),
        ("classifier.py", "the manifest says"),
    ],
)
def test_a_changed_file_is_refused_before_anything_is_imported(
    store: TableStore, client: MlflowClient, tmp_path: Path, file: str, what: str
) -> None:
    registered = register_tiny(store, client, tmp_path, TEXTS)
    version = registry.resolve(client, NAME, "1")
    directory = model_files.verified_directory(client, version, registered.files)
    target = directory / file
    ran = tmp_path / "ran"
    if file.endswith(".safetensors"):
        bytes_ = bytearray(target.read_bytes())
        bytes_[-1] ^= 1
        target.write_bytes(bytes(bytes_))
    else:
        is_code = file.endswith(".py")
        line = f"open({str(ran)!r}, 'w').close()" if is_code else "loader_module: os"
        with target.open("a") as out:
            out.write(f"\n{line}\n")
    with pytest.raises(IntegrityError, match=rf"review_classifier version 1: .*{what}"):
        gate.verified_model(store, client, version)
    assert not ran.exists()


def test_a_manifest_changed_in_the_registry_is_refused(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    registered = register_tiny(store, client, tmp_path, TEXTS)
    client.set_model_version_tag(NAME, "1", "manifest.sha256", "0" * 64)
    version = registry.resolve(client, NAME, "1")
    with pytest.raises(
        IntegrityError, match=r"expected the manifest of ops\.models, found another in the registry"
    ):
        model_files.verified_directory(client, version, registered.files)


def test_workers_read_the_model_below_landing_and_verify_it_themselves(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    registered = register_tiny(store, client, tmp_path, TEXTS)
    files = registered.files
    version = registry.resolve(client, NAME, "1")
    here = model_files.directory_for_workers(client, version, files, store.config)
    # A local lake needs no copy.
    assert here == model_files.verified_directory(client, version, files)
    cluster = LakeConfig(catalog="main", landing=str(tmp_path / "volume"))
    shared = model_files.directory_for_workers(client, version, files, cluster)
    assert shared.is_relative_to(tmp_path / "volume")
    assert model_files.load(shared, files)(TEXTS).equals(model_files.load(here, files)(TEXTS))

    # Simulate another user with write access.
    (shared / "classifier.py").write_text("raise SystemExit('ran')")
    with pytest.raises(
        IntegrityError, match=r"classifier\.py: the manifest says .* Restore the file; a copy below"
    ):
        model_files.load(shared, files)
    copied_again = model_files.directory_for_workers(client, version, files, cluster)
    assert copied_again == shared
    names = sorted(path.name[:8] for path in shared.parent.iterdir())
    assert names == sorted([shared.name[:8], "damaged-"])
    assert len(model_files.load(shared, files)(TEXTS)) == len(TEXTS)


def test_a_missing_alias_names_the_job_that_sets_it(client: MlflowClient) -> None:
    with pytest.raises(
        InputError, match=r"alias champion, found none\. Run jobs/promote\.py first"
    ):
        registry.resolve(client, NAME, "champion")


def test_a_store_is_created_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two CREATE TABLEs of MLflow once left a store that could not be opened."""
    place = LakeConfig(lake=str(tmp_path))
    database = tmp_path / "mlflow" / "mlflow.db"
    seen = []

    def link(made: Path, target: Path) -> None:
        n_versions = sqlite3.connect(made).execute("SELECT count(*) FROM alembic_version")
        seen.append((n_versions.fetchone(), target.exists()))
        raise KeyboardInterrupt  # a kill just before the store is in place

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.tracking.store.os.link", link)
        with pytest.raises(KeyboardInterrupt):
            connect(place)
    assert seen == [((1,), False)]
    assert not database.exists()
    assert connect(place).search_registered_models() == []
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]


def test_an_unreadable_store_is_one_line_and_exit_5(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(
        b"no database at all, but long enough to be looked at" * 40
    )
    with pytest.raises(
        SetupError, match=r"mlflow\.db: expected an MLflow store, found: "
    ) as refused:
        connect(LakeConfig(lake=str(tmp_path)))
    assert "\n" not in str(refused.value)


def test_all_pages_of_the_lakes_models_are_read(
    store: TableStore, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        register_tiny(store, client, tmp_path, TEXTS, seed)
    for name in ("a", "b"):
        client.create_registered_model(name)
    for search in ("search_registered_models", "search_model_versions"):
        monkeypatch.setattr(client, search, partial(getattr(client, search), max_results=1))
    assert registry.names(client, store.config, set()) == {NAME, "a", "b"}
    assert registry.live_versions(client, {NAME, "a", "b"}) == {(NAME, 1), (NAME, 2)}


def verdict(*, passes: bool) -> Verdict:
    return Verdict(
        (Check("beats_baseline", passes, {"accuracy": 0.9}, 0.8, "accuracy .9 against .8"),)
    )


def test_promotion_refusal_and_rollback_move_the_aliases_and_are_recorded(
    store: TableStore, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--lake", store.config.lake]
    with pytest.raises(InputError, match=r"Run jobs/train\.py first"):
        promote(argv)
    steps = (
        (0, True, {"challenger": 1, "champion": 1}),
        (1, True, {"challenger": 2, "champion": 2, "previous_champion": 1}),
        (2, False, {"challenger": 3, "champion": 2, "previous_champion": 1}),
    )
    for seed, passes, expected in steps:
        register_tiny(store, client, tmp_path, TEXTS, seed)
        monkeypatch.setattr(
            gate, "judge_challenger", lambda *_, passes=passes: verdict(passes=passes)
        )
        if passes:
            promote(argv)
        else:
            with pytest.raises(
                GateRefusedError, match=r"version 3: beats_baseline: failed.*Nothing was moved"
            ) as no:
                promote(argv)
            assert no.value.exit_code == 6
        assert aliases(client) == expected
    promote([*argv, "--rollback"])
    assert aliases(client) == {"challenger": 3, "champion": 1, "previous_champion": 2}
    decisions = (
        store.read(OPS_PROMOTIONS)
        .orderBy("decided_at")
        .select("model_version", "decision")
        .collect()
    )
    assert [tuple(row) for row in decisions] == [
        (1, "promoted"),
        (2, "promoted"),
        (3, "refused"),
        (1, "rolled_back"),
    ]
    champion = store.spark.sql(
        "SELECT max_by(model_version, decided_at) FROM ops.promotions WHERE decision <> 'refused'"
    )
    assert champion.collect()[0][0] == 1


def test_a_rollback_without_a_previous_champion_moves_nothing(store: TableStore) -> None:
    with pytest.raises(InputError, match="expected an alias previous_champion, found none"):
        promote(["--lake", store.config.lake, "--rollback"])
    assert not store.exists(OPS_PROMOTIONS)


def test_a_model_of_another_schema_is_the_lakes_if_ops_models_has_recorded_it(
    store: TableStore, client: MlflowClient
) -> None:
    for name in ("other.gold.ours", "other.gold.foreign"):
        client.create_registered_model(name)
    assert registry.names(client, store.config, set()) == set()
    assert registry.names(client, store.config, {"other.gold.ours"}) == {"other.gold.ours"}

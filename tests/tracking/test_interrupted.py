"""A run that was killed at one of its last steps is completed by the next run. Needs Spark."""

from pathlib import Path
from typing import Any

import pytest

from jobs import promote, score, train
from jobs import vacuum as vacuum_job
from pipelines.bundle import task_values
from pipelines.lake import ledger
from pipelines.lake.tables import TableStore
from pipelines.promote import gate
from pipelines.promote.checks import Check, Verdict
from pipelines.tracking import model_table, registry
from pipelines.tracking.store import connect
from schemas import GOLD_REVIEWS, OPS_MODELS, OPS_RUNS, SILVER_REVIEWS
from tests.support.registered import NAME
from tests.support.small_gold import TRAIN, encoder_in, gold_rows


def stages_of(store: TableStore) -> list[tuple[str, str]]:
    if not store.exists(OPS_RUNS):
        return []
    rows = store.read(OPS_RUNS).orderBy("finished_at").collect()
    return [(row.stage, row.state) for row in rows]


class KilledError(BaseException):
    """Stands for a kill: our code does not catch it."""


def killed(monkeypatch: pytest.MonkeyPatch, place: str, main: Any, argv: list[str]) -> None:
    """Run a job that is killed where it calls `place`; fail if it never calls it."""

    def kill(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(place, kill)
        with pytest.raises(KilledError):
            main(argv)


def silver_rows(store: TableStore) -> Any:
    rows = [(f"{'good' if n % 2 else 'bad'} film number {n}", n) for n in range(6)]
    return store.spark.createDataFrame(rows, "text string, n long").selectExpr(
        "sha2(text, 256) AS review_id",
        "text",
        "1 AS label",
        "false AS has_pii",
        "'imdb' AS source",
        "CAST(NULL AS STRING) AS source_split",
        "array(named_struct('source_sha256', sha2('f', 256), 'row_number', n, "
        "'source_file', 'f.csv')) AS origins",
        "sha2(text, 256) AS normal_hash",
    )


@pytest.mark.slow
def test_a_stage_killed_before_its_ledger_row_is_completed_by_the_next_run(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(GOLD_REVIEWS, gold_rows(store, 0, 64))
    place = ["--lake", store.config.lake]
    flags = [*place, *TRAIN, "--backbone", encoder_in(tmp_path / "encoder")]
    client = connect(store.config)

    killed(monkeypatch, "pipelines.tracking.model_table.record_model", train.main, flags)
    assert registry.live_versions(client, [NAME]) == {(NAME, 1)}
    assert not store.exists(OPS_MODELS)
    trained = []
    monkeypatch.setattr("pipelines.train.training.train_model", lambda *_: trained.append(1))
    train.main(flags)
    assert trained == []  # an hour of training is not lost to a kill in its last second
    assert registry.live_versions(client, [NAME]) == {(NAME, 1)}
    [model] = model_table.model_records(store)
    assert (model.version, model.gold_version) == (1, 1)
    assert client.get_run(model.run_id).info.status == "FINISHED"
    vacuum_job.main([*place, "--dry-run"])  # fails if registry and ops.models disagree

    passes = Verdict((Check("stub", True, {}, None, "passes"),))
    monkeypatch.setattr(gate, "judge_challenger", lambda *_: passes)
    killed(monkeypatch, "pipelines.lake.ledger.finish", promote.main, place)
    assert stages_of(store) == [("train", "done")]
    promote.main(place)

    store.append(SILVER_REVIEWS, silver_rows(store))
    killed(monkeypatch, "pipelines.lake.ledger.finish", score.main, place)
    score.main(place)
    expected = [("train", "done"), ("promote", "done"), ("score", "done")]
    assert stages_of(store) == expected
    for main in (promote.main, score.main):  # the second run does nothing
        main(place)
    assert stages_of(store) == expected


def test_after_a_rollback_promote_keeps_the_champion_and_sets_its_version_as_task_value(
    store: TableStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(GOLD_REVIEWS, gold_rows(store, 0, 64))
    place = ["--lake", store.config.lake]
    flags = [*place, *TRAIN, "--backbone", encoder_in(tmp_path / "encoder")]
    passes = Verdict((Check("stub", True, {}, None, "passes"),))
    monkeypatch.setattr(gate, "judge_challenger", lambda *_: passes)
    file = tmp_path / "values"
    monkeypatch.setenv(task_values.FILE, str(file))
    for seed, version in (("1", 1), ("2", 2)):
        train.main([*flags, "--seed", seed])
        promote.main(place)
        assert task_values.read_values(file) == {"model_version": version}
    promote.main([*place, "--rollback"])
    file.unlink()
    before = stages_of(store)
    train.main([*flags, "--seed", "2"])
    promote.main(place)
    assert task_values.read_values(file) == {"model_version": 1}
    assert stages_of(store) == before  # nothing was done, so the ledger has no new row
    aliases = connect(store.config).get_registered_model(NAME).aliases
    assert {name: int(version) for name, version in aliases.items()} == {
        "champion": 1,
        "previous_champion": 2,
    }


def test_complete_writes_a_missing_ledger_row_only_once(store: TableStore) -> None:
    run = ledger.start("promote", store.config, {"challenger": 1})
    ledger.complete(store, run, [])
    ledger.complete(store, run, [])
    assert stages_of(store) == [("promote", "done")]

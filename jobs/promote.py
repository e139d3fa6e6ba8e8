"""Put the challenger through the gate and make it the champion, or go back to the champion before.

    spark-submit --properties-file spark-defaults.conf jobs/promote.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/promote.py --lake lake --rollback

Reads   gold.reviews at the version the challenger learned from, ops.models, the registry
Writes  ops.promotions, the aliases champion and previous_champion; tells the tasks behind it model_version
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.bundle import task_values
from pipelines.cli import flag, group
from pipelines.errors import GateRefusedError
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from pipelines.promote import gate
from pipelines.promote.checks import as_json, moves
from pipelines.tracking import registry
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME, PREVIOUS_CHAMPION
from pipelines.tracking.store import connect


@dataclass(frozen=True)
class PromoteConfig:
    """Flags of this job."""

    model_name: str = flag("registered model", MODEL_NAME)
    rollback: bool = flag("make previous_champion the champion again, without the gate", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Decide, write the decision down, then move the aliases; a refusal moves nothing and exits 6."""
    config = cli.parse(PromoteConfig, argv, __doc__)
    store = TableStore(get_session("promote", config.lake), config.lake)
    client = connect(config.lake)
    name = config.model_name
    champion, previous = (
        registry.version_of(client, name, alias) for alias in (CHAMPION, PREVIOUS_CHAMPION)
    )
    now, before = (None if found is None else int(found.version) for found in (champion, previous))
    waiting = registry.version_of(client, name, CHALLENGER)
    if config.rollback:
        aliases = moves("rolled_back", now, before, int(waiting.version) if waiting else None)
        gate.record_decision(store, name, before or 0, "rolled_back", gate.rollback_reasons(), now)
        registry.move_aliases(client, name, aliases)
        return
    if now and (waiting is None or int(waiting.version) == now):  # None: it was rolled back
        cli.log.info(
            "promote: nothing to do, %s version %d is the champion, no other waits", name, now
        )
        if waiting:  # a run that was killed after it moved the aliases has no row in the ledger
            ledger.complete(
                store, ledger.start("promote", config, {"challenger": now, "champion": before or 0})
            )
        task_values.set_value("model_version", now)
        return
    challenger = waiting or registry.resolve(client, name, CHALLENGER)  # which says what to run
    version = int(challenger.version)
    run = ledger.start("promote", config, {"challenger": version, "champion": now or 0})
    if ledger.was_refused(store, run):
        raise GateRefusedError(
            f"{name} version {version}: refused before (ops.promotions). Nothing was moved."
        )
    verdict = gate.judge_challenger(store, client, challenger, champion)
    decision = "promoted" if verdict.passed else "refused"
    commit = gate.record_decision(store, name, version, decision, as_json(verdict), now)
    registry.move_aliases(client, name, moves(decision, now, before, version))
    n_passed = sum(check.passed for check in verdict.checks)
    counts = {"checks": len(verdict.checks), "passed": n_passed}
    ledger.finish(store, run, [commit], counts, state="done" if verdict.passed else "refused")
    if not verdict.passed:
        failed = "; ".join(str(check) for check in verdict.checks if not check.passed)
        raise GateRefusedError(f"{name} version {version}: {failed}. Nothing was moved.")
    task_values.set_value("model_version", version)


if __name__ == "__main__":
    program.run(main)

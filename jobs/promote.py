"""Check the challenger; if it passes, make it the champion. Or restore the previous champion.

    spark-submit --properties-file spark-defaults.conf jobs/promote.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/promote.py --lake lake --rollback

Reads   gold.reviews at the version the challenger learned from, ops.models, the registry
Writes  ops.promotions, ops.runs, the model's aliases; sets the Databricks task value model_version
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, flag_rules, program
from pipelines.bundle import task_values
from pipelines.cli import flag, group
from pipelines.errors import GateRefusedError
from pipelines.lake.config import LakeConfig
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME, PREVIOUS_CHAMPION
from schemas import OPS_PROMOTIONS

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class PromoteConfig:
    """Flags of this job."""

    model_name: str = flag("registered model", MODEL_NAME, must_be=flag_rules.MODEL_NAME)
    rollback: bool = flag("make previous_champion the champion again, without the gate", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Decide, record the decision, then move the aliases; a refusal moves nothing and exits 6."""
    config = cli.parse(PromoteConfig, argv, __doc__)
    # Imported after the flags: --help needs none of it, and a finished run needs no MLflow.
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake
    from pipelines.tracking.aliases import versions_by_alias

    store = open_lake("promote", config.lake)
    name = config.model_name
    versions = versions_by_alias(config.lake, name)
    champion = versions.get(CHAMPION)
    previous = versions.get(PREVIOUS_CHAMPION)
    challenger = versions.get(CHALLENGER)
    inputs = {"challenger": challenger or 0, "champion": champion or 0}
    run = ledger.start("promote", config, inputs)
    if not config.rollback and challenger and ledger.was_refused(store, run):
        raise GateRefusedError(
            f"{name} version {challenger}: refused before (ops.promotions). Nothing was moved."
        )
    if not config.rollback and champion and challenger in (None, champion):  # None: rolled back
        log.info("promote: nothing to do, %s version %d is the champion", name, champion)
        if challenger:  # a run killed after it moved the aliases has no row in the ledger
            inputs = {"challenger": champion, "champion": previous or 0}
            left_out = ledger.start("promote", config, inputs)
            ledger.complete(store, left_out, [OPS_PROMOTIONS])
        task_values.set_value("model_version", champion)
        return

    from pipelines.promote import gate
    from pipelines.promote.checks import as_json, moves
    from pipelines.tracking import registry
    from pipelines.tracking.store import connect

    client = connect(config.lake)
    if config.rollback:
        aliases = moves("rolled_back", champion, previous, challenger)
        reasons = gate.rollback_reasons()
        commit = gate.record_decision(store, name, previous or 0, "rolled_back", reasons, champion)
        # Before the aliases move: a run killed in between is repeated as a whole.
        ledger.finish(store, run, [commit], {"rolled_back": 1})
        registry.move_aliases(client, name, aliases)
        return
    candidate = registry.resolve(client, name, CHALLENGER)  # raises if nothing was trained yet
    version = int(candidate.version)
    current = registry.version_of(client, name, CHAMPION)
    verdict = gate.judge_challenger(store, client, candidate, current)
    decision = "promoted" if verdict.passed else "refused"
    commit = gate.record_decision(store, name, version, decision, as_json(verdict), champion)
    registry.move_aliases(client, name, moves(decision, champion, previous, version))
    n_passed = sum(check.passed for check in verdict.checks)
    counts = {"checks": len(verdict.checks), "passed": n_passed}
    state = "done" if verdict.passed else "refused"
    ledger.finish(store, run, [commit], counts, state=state)
    if not verdict.passed:
        failed = "; ".join(str(check) for check in verdict.checks if not check.passed)
        raise GateRefusedError(f"{name} version {version}: {failed}. Nothing was moved.")
    task_values.set_value("model_version", version)


if __name__ == "__main__":
    program.run(main)

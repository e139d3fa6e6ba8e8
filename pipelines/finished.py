"""What a finished demo read and left: while neither has changed, another one has nothing to do.

The ledger tells each stage so, but it is a table, and Spark takes half a minute to start and to read it.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import backbone, places, registry, runner
from pipelines.graph import job_of
from pipelines.ingest import Delivery, deliver
from pipelines.promote import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION
from pipelines.provenance import ROOT, sha256_of
from pipelines.session import LakeConfig
from schemas import TABLES

ALIASES = (CHALLENGER, CHAMPION, PREVIOUS_CHAMPION)
log = logging.getLogger("reviewlake")


FILE = "runs/demo.json"  # below the landing directory, beside the runner's own notes


@dataclass(frozen=True)
class Finished:
    """A demo that ran to its end: what it depended on and left, its exit code, and what it said of the lake."""

    state: Mapping[str, str]
    exit_code: int
    said: str


def state_of(definition: Mapping[str, Any], lake: LakeConfig) -> dict[str, str]:
    """All that the outcome of the job `pipeline` depends on, and all that it leaves: by content, or by version."""
    variables, client = definition["variables"], registry.connect(lake)
    delivery = Delivery(source=variables["source"], path=variables["path"], name=variables["name"])
    aliases = {name: registry.version_of(client, variables["model"], name) for name in ALIASES}
    return {
        "release": importlib.metadata.version("reviewlake"),
        "code": code_sha256(ROOT),
        "calls": "\n".join(runner.plan(job_of(definition, "pipeline"), {})),
        "delivery": deliver(delivery, lake.landing_path)[1],
        "backbone": backbone.fingerprint(backbone.find(variables["backbone"])),
        **{table.name: head_of(Path(places.location(lake, table))) for table in TABLES},
        **{name: str(version.version) if version else "none" for name, version in aliases.items()},
    }


def head_of(table: Path) -> str:
    """A local table's latest version, and the hash of the commit that made it."""
    commits = places.commits_of(table)
    return f"{commits[-1].stem} {sha256_of(commits[-1])}" if commits else "none"


def code_sha256(root: Path) -> str:
    """SHA-256 of the code that runs."""
    files = sorted(path for layer in ("jobs", "pipelines", "schemas") for path in (root / layer).rglob("*.py"))
    return hashlib.sha256("".join(f"{path} {sha256_of(path)}\n" for path in files).encode()).hexdigest()


def recall(lake: LakeConfig) -> Finished | None:
    """What was noted last; None where there is nothing, or nothing that can be read."""
    file = lake.landing_path / FILE
    try:
        return Finished(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        log.debug("%s: no finished demo that can be read; every stage is asked", file)
        return None


def note(lake: LakeConfig, finished: Finished) -> None:
    """Note a finished demo, for the next one."""
    runner.write_json(lake.landing_path / FILE, dataclasses.asdict(finished))

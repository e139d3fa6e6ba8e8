"""What the last finished demo read and left: while neither has changed, another one has nothing to do.

The ledger tells each stage so, but it is a table, and Spark takes half a minute to start and to read it.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import functions as F

from pipelines import cli
from pipelines.bundle import runner
from pipelines.bundle.graph import job_of
from pipelines.demo import STAGES
from pipelines.ingest.sources import Delivery, deliver
from pipelines.lake import catalog, ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.model import backbone
from pipelines.model.manifest import manifest_sha256
from pipelines.provenance import ROOT, sha256_of
from pipelines.tracking import registry
from pipelines.tracking.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION
from pipelines.tracking.store import connect
from schemas import TABLES

FILE = "runs/demo.json"  # below the lake's landing directory
JOBS = ("pipeline", "score")  # the second where the gate refuses in the first
PACKAGES = ("reviewlake", "tokenizers", "torch", "transformers")
NONE = "none"
log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class Finished:
    """A demo: the state it left, empty where another has to look; its exit code; what there was to say of the lake."""

    state: Mapping[str, str]
    exit_code: int
    said: str


def inputs_of(definition: Mapping[str, Any], lake: LakeConfig) -> dict[str, str]:
    """What the stages start from, by content or version: code, calls, delivered file, backbone, packages."""
    variables, landing = definition["variables"], lake.landing_path
    with contextlib.chdir(ROOT):  # as the runner does
        given = {name: variables[name] for name in ("source", "path", "name")}
        delivery = cli.from_params(Delivery, cli.as_params(Delivery()) | given)
        return {
            "code": code_sha256(ROOT),
            "calls": "\n".join(
                line for job in JOBS for line in runner.plan(job_of(definition, job), {})
            ),
            "delivery": deliver(delivery, landing)[1],
            "backbone": backbone.fingerprint(backbone.find(variables["backbone"])),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "pyspark": pyspark.__version__,  # no package where it comes with a distribution of Spark
        }


def left_in(lake: LakeConfig, model: str) -> dict[str, str]:
    """What a demo leaves: of each table the latest version and the hash of its log, of each alias the model version."""
    client = connect(lake)
    aliases = {
        name: registry.version_of(client, model, name)
        for name in (CHALLENGER, CHAMPION, PREVIOUS_CHAMPION)
    }
    return {
        **{
            table.name: log_of(Path(catalog.location(lake, table), "_delta_log"))
            for table in TABLES
        },
        **{name: str(version.version) if version else NONE for name, version in aliases.items()},
    }


def log_of(log: Path) -> str:
    """The latest version in a local table's log, and the hash of all commits up to it."""
    commits = catalog.commits_of(log)
    return f"{int(commits[-1].stem)} {sha256_of_all(commits)}" if commits else NONE


def code_sha256(root: Path) -> str:
    """SHA-256 of the Python code."""
    found = (
        path for layer in ("jobs", "pipelines", "schemas") for path in (root / layer).rglob("*.py")
    )
    return sha256_of_all(path for path in found if path.is_file())


def sha256_of_all(files: Iterable[Path]) -> str:
    """SHA-256 over the paths and contents of files."""
    return manifest_sha256((str(file), 0, sha256_of(file)) for file in files)


def state_of(
    store: TableStore,
    inputs: Mapping[str, str],
    before: Mapping[str, str],
    model: str,
    is_refused: bool,
) -> dict[str, str]:
    """The state that a demo leaves, from its inputs and what it found; empty where another job came between two stages.

    Where it left all as it was, every stage has seen this state. Else the versions there must be those that the stages'
    last runs read and left.
    """
    left = left_in(store.config, model)
    state = {**inputs, **left}
    if left == before:
        return state
    now = {name: left[name].split()[0] for name in [CHALLENGER, *(table.name for table in TABLES)]}
    now["model_version"] = left[CHALLENGER if is_refused else CHAMPION]  # of the model that scored
    runs = ledger.last_runs(store, "input_versions", "output_versions").where(
        F.col("stage").isin(*STAGES)
    )
    seen = [item for _, *maps in runs.collect() for versions in maps for item in versions.items()]
    return state if all(now.get(name, str(n)) == str(n) for name, n in seen) else {}


def recall(lake: LakeConfig) -> Finished | None:
    """What was noted last; None where there is nothing, or nothing that can be read."""
    file = lake.landing_path / FILE
    try:
        return Finished(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError):
        log.info("%s: cannot be read, so every stage is asked", file)
        return None


def note(lake: LakeConfig, finished: Finished) -> None:
    """Note a finished demo, for the next one."""
    runner.write_json(lake.landing_path / FILE, dataclasses.asdict(finished))

"""Score what arrives, batch by batch: what the jobs ingest, clean and score do, one after another.

The checkpoint is the ledger in the lake: each stage goes on from the version that its last finished
run has read. Killed at any moment, a batch is done again, and finds what was written already.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from pipelines import clean, score
from pipelines.errors import ConflictError
from pipelines.ingest import intake
from pipelines.ingest.deliveries import ADDED, REFUSED
from pipelines.ingest.files import FoundFile, files_at
from pipelines.ingest.sources import Delivery
from pipelines.lake.tables import TableStore
from pipelines.model.predict import VerifiedModel
from pipelines.program import one_line
from pipelines.tracking import aliases
from pipelines.tracking.scoring import Scoring
from pipelines.tracking.workers import verified_model
from schemas import BRONZE_REVIEWS, SILVER_REVIEWS

log = logging.getLogger("reviewlake")

SETTLED_S = 1.0  # a file that has changed since may be still being written


@dataclass(frozen=True)
class Batch:
    """What came of one batch."""

    n_in: int
    n_scored: int
    n_rejected: int  # also those whose text the model cannot read
    n_duplicates: int
    duration_s: float
    lag_s: float | None  # from the arrival of its first row until it was scored

    def __str__(self) -> str:
        lag = "unknown" if self.lag_s is None else f"{self.lag_s:.1f} s"
        return (
            f"{self.n_in:,} rows in, {self.n_scored:,} scored, {self.n_rejected:,} rejected, "
            f"{self.n_duplicates:,} duplicates, {self.duration_s:.1f} s, lag {lag}"
        )


@dataclass
class Stream:
    """What one process keeps between its batches, to look only at what is new."""

    store: TableStore
    delivery: Delivery | None  # None: what another job ingests
    scoring: Scoring
    _refused: set[FoundFile] = field(default_factory=set)
    _done: tuple[int, int, int] | None = None  # bronze, silver and model version of the last batch
    _model: tuple[int, VerifiedModel] | None = None

    def run_batch(self, *, waits: bool = False) -> Batch | None:
        """Take, clean and score what is new; None if nothing is.

        waits  leave a file that has just changed to a later batch
        """
        started_s, arrived = time.monotonic(), self._ingest(waits)
        if self.delivery and not self.store.exists(BRONZE_REVIEWS):
            return None  # no file has come yet
        bronze = self.store.latest(BRONZE_REVIEWS)
        name = self.scoring.model_name
        model = aliases.version_number(self.store.config, name, self.scoring.model)
        silver = self.store.version(SILVER_REVIEWS) if self.store.exists(SILVER_REVIEWS) else -1
        if self._done == (bronze, silver, model):
            return None
        cleaned = clean.run(self.store, self.store.config)
        scored = score.run(
            self.store, self.scoring, name, model, self.scoring.tasks, partial(self._open, model)
        )
        self._done = (bronze, self.store.version(SILVER_REVIEWS), model)
        if not cleaned and not scored:
            return None
        rows = cleaned.rows if cleaned else {}
        scores = scored or {}
        if cleaned and not arrived and cleaned.oldest:
            arrived = cleaned.oldest.astimezone(UTC)
        return Batch(
            n_in=rows.get("in", 0),
            n_scored=scores.get("scored", 0),
            n_rejected=rows.get("rejected", 0) + scores.get("score_errors", 0),
            n_duplicates=rows.get("duplicates", 0),
            duration_s=time.monotonic() - started_s,
            lag_s=(datetime.now(UTC) - arrived).total_seconds() if arrived else None,
        )

    def _ingest(self, waits: bool) -> datetime | None:
        """Add the files that are new to bronze; return when the first of them was complete."""
        if not self.delivery:
            return None
        paths = files_at(self.delivery.locations, self.delivery.source, is_watched=True)
        found = [FoundFile.at(path) for path in paths]
        fresh = _fresh(found) if waits else set()
        outcomes = intake.run(
            self.store,
            self.delivery,
            self.delivery,
            found,
            is_watched=True,
            passed_over=self._refused | fresh,
        )
        self._refused |= {out.file.found for out in outcomes if out.outcome == REFUSED}
        added = [out.file.found.modified_ns for out in outcomes if out.outcome == ADDED]
        return datetime.fromtimestamp(min(added) / 1e9, UTC) if added else None

    def _open(self, version: int) -> VerifiedModel:
        """Return a version of the model, verified once; each worker verifies what it loads."""
        if self._model is None or self._model[0] != version:
            self._model = version, verified_model(self.store, self.scoring.model_name, version)
        return self._model[1]


def _fresh(found: list[FoundFile]) -> set[FoundFile]:
    """Return the files that have just changed."""
    latest_ns = time.time_ns() - int(SETTLED_S * 1e9)
    return {file for file in found if file.modified_ns > latest_ns}


def follow(
    run_batch: Callable[[], Batch | None], interval_s: float, stopping: threading.Event
) -> None:
    """Run a batch every `interval_s` seconds, later ones at once if one took longer, until stopped.

    Another job that has committed first is no end: the next batch sees what it wrote.
    """
    n_batches = 0
    while not stopping.is_set():
        started_s = time.monotonic()
        try:
            batch = run_batch()
        except ConflictError as error:
            log.warning("%s", one_line(error))
            batch = None
        if batch:
            n_batches += 1
            log.info("batch %s: %s", f"{n_batches:,}", batch)
        stopping.wait(max(0.0, interval_s - (time.monotonic() - started_s)))

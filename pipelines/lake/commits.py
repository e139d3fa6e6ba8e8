"""A write's own commit: its version, and how many rows it added, changed and removed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors import IntegrityError
from schemas import Table

RECENT = 50  # latest versions searched for our own commit
Found = tuple[int, Mapping[str, str]] | None  # version and Delta's metrics


@dataclass(frozen=True)
class Commit:
    """The table's version after a write, and how many rows it added, changed and removed."""

    table: Table
    version: int
    n_added: int
    n_changed: int = 0
    n_removed: int = 0

    def __str__(self) -> str:
        return (
            f"{self.table.name} v{self.version}: {self.n_added:,} rows added, "
            f"{self.n_changed:,} changed, {self.n_removed:,} removed"
        )


def versions_left(commits: Iterable[Commit]) -> dict[str, int]:
    """Return the version that each commit left, by table."""
    return {commit.table.name: commit.version for commit in commits}


def own_commit(history: DataFrame, commit_id: str, version_before: int) -> Found:
    """Return the commit with this id in DESCRIBE HISTORY; without an id the next one."""
    is_own = F.col("version") > version_before
    if commit_id:
        is_own = F.col("userMetadata") == commit_id
    own_commits = history.where(is_own).orderBy("version")
    row = own_commits.select("version", "operationMetrics").first()
    return (row["version"], row["operationMetrics"]) if row else None


def required(table: Table, commit_id: str, found: Found) -> Commit:
    """Return the commit that was found. Raises IntegrityError if another writer replaced it."""
    if found is None:
        raise IntegrityError(
            f"{table.name}: commit {commit_id} is not among the last {RECENT} "
            "versions. Another writer has overwritten it; run the stage again."
        )
    version, metrics = found
    return Commit(
        table,
        version,
        n_added=int(metrics.get("numTargetRowsInserted", metrics.get("numOutputRows", 0))),
        n_changed=int(metrics.get("numTargetRowsUpdated", 0)),
        n_removed=int(metrics.get("numTargetRowsDeleted", 0)),
    )

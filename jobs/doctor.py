"""Examine a lake: print one line per problem with its fix; print nothing if it is healthy.

    python jobs/doctor.py --lake lake
    python jobs/doctor.py --lake lake --deep

Reads   every table, gold.reviews at each model's version, every file of every registered model;
        with --deep every version and file that a run has recorded
Writes  nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig


@dataclass(frozen=True)
class DoctorConfig:
    """Flags of this job."""

    deep: bool = flag("also compare every recorded version with what its run has left", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the faults as they are found; exit 3 if there is one."""
    config = cli.parse(DoctorConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark and MLflow.
    from pipelines.lake.session import get_session
    from pipelines.operate.doctor import examine

    n_faults = 0
    session = get_session("doctor", config.lake)
    for fault in examine(session, config.lake, is_deep=config.deep):
        program.show(str(fault))
        n_faults += 1
    if n_faults:
        where = config.lake.catalog or config.lake.lake
        raise IntegrityError(f"{where}: {n_faults} faults, listed above.")


if __name__ == "__main__":
    program.run(main)

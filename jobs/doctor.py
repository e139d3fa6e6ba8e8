"""Look over a lake: one line for each fault and what mends it; silent where all is well.

    python jobs/doctor.py --lake lake

Reads   every table, gold.reviews at each model's version, every file of every registered model
Writes  nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import group
from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.operate.doctor import examine


@dataclass(frozen=True)
class DoctorConfig:
    """Flags of this job."""

    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the faults as they are found; exit 3 where there is one."""
    config = cli.parse(DoctorConfig, argv, __doc__)
    n_faults = 0
    for fault in examine(get_session("doctor", config.lake), config.lake):
        print(fault)
        n_faults += 1
    if n_faults:
        raise IntegrityError(
            f"{config.lake.catalog or config.lake.lake}: {n_faults} faults, listed above."
        )


if __name__ == "__main__":
    program.run(main)

"""The errors a job can end with: one class per exit code (README, "When it breaks")."""


class JobError(Exception):
    """One line for the user: where, what is wrong, what to do. The class decides the exit code."""

    exit_code = 1


class InputError(JobError):
    """Invalid input: file, flag or row."""

    exit_code = 2


class ContractError(InputError):
    """The columns of a frame or file do not match the table's contract."""


class IntegrityError(JobError):
    """What was read back differs from what was written: hash, manifest or row count."""

    exit_code = 3


class ConflictError(JobError):
    """Another writer holds the table's lock, or has committed first."""

    exit_code = 4


class SetupError(JobError):
    """The machine lacks something the job needs: Java, a jar, disk space, network, a package."""

    exit_code = 5


class GateRefusedError(JobError):
    """The promotion gate refused the challenger; no alias was moved."""

    exit_code = 6

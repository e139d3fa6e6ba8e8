"""The ways a job ends without having done its work, one exit code each (design.md, "Exit codes")."""


class JobError(Exception):
    """One line for the user: where, expected, found, what to do. The class says the exit code."""

    exit_code = 1


class InputError(JobError):
    """A file, a flag or a row that does not hold what it must."""

    exit_code = 2


class ContractError(InputError):
    """A frame or a file whose columns are not the table's."""


class IntegrityError(JobError):
    """Something read back is not what was written: a hash, a manifest, a count."""

    exit_code = 3


class ConflictError(JobError):
    """Another writer holds the table, or committed first."""

    exit_code = 4


class SetupError(JobError):
    """The machine lacks what the job needs: Java, a jar, disk, a network, a package."""

    exit_code = 5


class GateRefusedError(JobError):
    """The promotion gate said no; nothing was moved."""

    exit_code = 6

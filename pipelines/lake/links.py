"""Links below a lake must not lead out of it: a job would write to, or delete, somebody's files.

So `inside` refuses such a link, and `write_whole` follows none.
"""

import os
from pathlib import Path

from pipelines.errors import IntegrityError


def inside(root: Path, place: Path, other_advice: str = "") -> Path:
    """Return `place`, which is below `root`, whether it exists or not.

    Raises IntegrityError (exit 3) if a link on the way from `root` leads out of it. `root` itself
    may be reached through links.
    """
    # Path.resolve() raises RuntimeError for a link that leads to itself.
    if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(root)):
        raise IntegrityError(
            f"{place}: leads out of {root} through a link. Nothing was written or deleted there. "
            f"Replace the link by a directory or file of its own{other_advice}."
        )
    return place


def write_whole(file: Path, text: str, suffix: str = "") -> None:
    """Replace a file by a text, whole or not at all, after a power cut too. Follows no link.

    suffix  makes the name of the partial file unique, where two processes may write at once
    """
    partial = file.with_name(f"{file.name}.partial{suffix}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)  # of a killed run
    with partial.open("x", encoding="utf-8") as opened:  # fails for a link made meanwhile
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(partial, file)

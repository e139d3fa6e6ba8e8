"""Values that one task of a job sets and later tasks get as arguments.

In a Databricks runtime they go to the job; under the local runner they go to a file.
"""

import json
import os
from pathlib import Path

# Environment variable by which the local runner names the file: one JSON object per line.
FILE = "REVIEWLAKE_TASK_VALUES"


def set_value(name: str, value: int | str) -> None:
    """Set a value that later tasks get for {{tasks.<this task>.values.<name>}}.

    Does nothing outside a job.
    """
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        from databricks.sdk.runtime import dbutils

        dbutils.jobs.taskValues.set(key=name, value=value)
    elif FILE in os.environ:
        with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: value}) + "\n")


def read_values(file: Path) -> dict[str, int | str]:
    """Return the values that a task has set; the last one for a repeated name."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: value for line in lines for name, value in json.loads(line).items()}

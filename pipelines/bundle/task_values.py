"""What one task of a job tells the tasks behind it: to Databricks in its runtime, to a file under the local runner."""

import json
import os
from pathlib import Path

FILE = "REVIEWLAKE_TASK_VALUES"  # set by the local runner: where a task's values go, one JSON object a line


def set_value(name: str, value: int | str) -> None:
    """Set a value that later tasks read as {{tasks.<this one>.values.<name>}}; outside a job, nobody listens."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        from databricks.sdk.runtime import dbutils

        dbutils.jobs.taskValues.set(key=name, value=value)
    elif FILE in os.environ:
        with Path(os.environ[FILE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: value}) + "\n")


def read_values(file: Path) -> dict[str, int | str]:
    """All values that a task has set; the last one of a name counts."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: value for line in lines for name, value in json.loads(line).items()}

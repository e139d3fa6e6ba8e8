"""A write that the disk refuses is one line with advice, and changes nothing. Runs a subprocess.

A limit on the size of a file stands for a full disk: Java gets an error of the system for it.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.processes import ROOT, own_environment

WRITE = """
    import os, resource, sys
    from pathlib import Path
    from pyspark.sql import functions as F
    from pipelines import program
    from pipelines.lake.config import LakeConfig
    from pipelines.lake.tables import open_lake
    from schemas import GOLD_REJECTS
    from tests.support.processes import descendants

    def main(argv):
        store = open_lake("disk", LakeConfig(lake=argv[0]))
        for n_rows in (1_000, 100_000):
            numbers = store.spark.range(n_rows)
            ids = F.sha2(F.col("id").cast("string"), 256).alias("review_id")
            store.append(GOLD_REJECTS, numbers.select(ids, F.lit("unlabelled").alias("reason")))
            for pid in descendants(os.getpid()):
                if Path(f"/proc/{pid}/comm").read_text() == "java\\n":
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
                    print("limited", flush=True)

    program.run(main)
"""


@pytest.mark.slow
def test_a_write_of_spark_that_the_disk_refuses_is_one_line_and_changes_nothing(
    tmp_path: Path,
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITE), str(tmp_path)],
        cwd=ROOT,
        env=own_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == "limited\n", process.stderr
    assert process.stderr.splitlines() == [
        "gold.rejects v1: 1,000 rows added, 0 changed, 0 removed",
        "SetupError: file too large. Raise the limit on the size of a file, then run it again.",
    ]
    assert process.returncode == 5
    log = tmp_path / "gold" / "rejects" / "_delta_log"
    assert sorted(file.stem for file in log.glob("*.json")) == [f"{n:020}" for n in (0, 1)]

"""A worker that scores keeps to the memory that DATABRICKS.md names. Slow: the real encoder."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pipelines.model import backbone, classifier
from pipelines.train.encoder import load_for_training
from tests.support.processes import own_environment

MAX_MB = 1_400  # 1,290 here; half of it is torch's CUDA build and transformers
# What a Spark worker does: load the model from a verified copy, score a task's reviews.
PROGRAM = """
import sys
from pathlib import Path
import pandas as pd, torch
from pipelines.ingest.sources import packaged_file
from pipelines.model.manifest import manifest_of
from pipelines.model.predict import score_texts
from pipelines.score import TASK_REVIEWS
from pipelines.tracking import model_files
torch.set_num_threads(1)
directory = Path(sys.argv[1])
predict = model_files.load(directory, manifest_of(directory))
texts = pd.read_csv(packaged_file()[0], nrows=TASK_REVIEWS)["text"]
print(score_texts(texts, predict)["probability"].notna().sum())
status = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the memory")
def test_a_worker_scores_a_tasks_reviews_within_its_memory(tmp_path: Path) -> None:
    model, tokenizer = load_for_training(backbone.find(backbone.EMBEDDED), seed=0)
    policy = classifier.Policy(max_tokens=96, pooling="mean", precision="fp32")
    classifier.save(tmp_path / "files", model, tokenizer, policy)
    mlflow.pyfunc.save_model(
        tmp_path / "logged",
        python_model=classifier.__file__,
        artifacts={"model": str(tmp_path / "files")},
        signature=classifier.SIGNATURE,
        pip_requirements=[],
    )
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "logged")]
    answer = subprocess.run(
        command, env=own_environment(), capture_output=True, text=True, check=True
    )
    n_scored, peak_mb = map(int, answer.stdout.split())
    assert n_scored == 1_000
    assert 300 < peak_mb < MAX_MB

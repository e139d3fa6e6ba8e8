"""The pipeline, by stage. Read in this order: ingest, clean, curate, train, promote, score.

Below them: lake (Spark and Delta), tracking (MLflow), model (the classifier and its metrics).
Above them: stream, reproduce, operate, bundle, demo. Each package's docstring describes it.
"""

import os
import sys

# Libraries read these once, when they are first loaded, so they are set before anything else.
DEFAULTS = {
    # Otherwise OpenMP threads spin at barriers: training beside another busy process takes six
    # times as long (DECISIONS.md, 2026-11-23).
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # for deterministic matrix products on a GPU
    "MLFLOW_UV_AUTO_DETECT": "false",  # else MLflow looks for the project's lock file
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for name, value in DEFAULTS.items():
    os.environ.setdefault(name, value)

# `python -m pipelines.bundle` looks for every module in the current directory first: a queue.py
# there would replace Python's own. While it looks, sys.argv[0] is "-m".
is_module = sys.argv[:1] == ["-m"]
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if is_module and sys.path[0] == os.getcwd() != root:
    del sys.path[0]

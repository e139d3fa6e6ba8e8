"""The pipeline, by stage. Read in this order: ingest, clean, curate, train, promote, score.

Below them: lake (Spark and Delta), tracking (MLflow), model (what a model is). Above them:
reproduce, operate, bundle, demo. Each room's own docstring says what it is.
"""

import os

# Libraries read these once, when they are first loaded, so they are set before anything else.
DEFAULTS = {
    # Threads of OpenMP spin at barriers otherwise: training beside another busy process takes six
    # times as long (DECISIONS.md, 2026-11-23).
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic products on a GPU need it
    "MLFLOW_UV_AUTO_DETECT": "false",  # MLflow would look for the project's lock file
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for name, value in DEFAULTS.items():
    os.environ.setdefault(name, value)

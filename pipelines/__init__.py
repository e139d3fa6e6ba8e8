"""What happens to data: one module a stage, with the job's name."""

import os

# Before torch loads OpenMP: its threads spin at barriers otherwise, and training beside any other busy process takes
# six times as long (DECISIONS.md, 2026-11-23).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

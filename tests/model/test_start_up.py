"""Flags of training and the fingerprint of a backbone import no slow package. Needs no Spark."""

import subprocess
import sys

# Each takes half a second or more to import; tokenizers, which is allowed, takes 0.02 s.
SLOW = ("torch", "transformers", "mlflow", "pyspark", "huggingface_hub", "pandas")
PROGRAM = f"""
import sys
from pipelines.model import backbone, manifest
from pipelines.train import settings
directory = backbone.find(settings.TrainSettings().backbone)
assert len(backbone.fingerprint(directory)) == 64
assert backbone.load_tokenizer(directory).get_vocab_size() > 30_000
assert manifest.manifest_of(directory)
print([name for name in {SLOW} if name in sys.modules])
"""


def test_settings_backbone_and_manifest_import_no_slow_package() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert run.stdout == "[]\n", run.stderr

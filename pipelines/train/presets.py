"""Training settings by name: what --preset chooses from."""

from pipelines.model.backbone import FREEZE_A_THIRD, FREEZE_NOTHING, KEEP_DROPOUT
from pipelines.train.loop import TrainSettings

# Quality per minute: BENCHMARKS.md.
BEST_PRESET = TrainSettings(max_tokens=192, score_tokens=256, freeze_layers=FREEZE_A_THIRD, learning_rate=2.5e-4)
# The seed's own: BERT-tiny on the first 128 tokens at a constant rate, dropout as published.
SEED_PRESET = TrainSettings(
    "prajjwal1/bert-tiny", max_tokens=128, head_share=1.0, epochs=10, batch_size=64, learning_rate=2e-5,
    lexical=False, pooling="own", schedule="constant", warmup_share=0.0, freeze_layers=FREEZE_NOTHING,
    dropout=KEEP_DROPOUT, patience=10, precision="fp32",
)  # fmt: skip
PRESETS = {"best": BEST_PRESET, "seed": SEED_PRESET}

"""Training settings, which are flags of jobs/train.py, and their presets."""

import math
from dataclasses import dataclass

from pipelines.cli import flag
from pipelines.flag_rules import PATH, SHARE, Rule, between
from pipelines.model.backbone import EMBEDDED

KEEP_DROPOUT = -1.0
FREEZE_NOTHING, FREEZE_A_THIRD, FREEZE_HALF = -1, -2, -3
DROPOUT = Rule(
    "0..0.9 or -1 (the backbone's own)",
    lambda value: value == KEEP_DROPOUT or 0 <= value <= 0.9,
)
DEVICES = ("auto", "cuda", "cpu")
FRACTIONS = {FREEZE_A_THIRD: 3, FREEZE_HALF: 2}  # one layer in n is frozen


@dataclass(frozen=True)
class TrainSettings:
    """All settings that change the weights. DECISIONS.md gives the reasons for the defaults."""

    backbone: str = flag(
        f"{EMBEDDED} (packaged), a directory, or a model of the hub",
        EMBEDDED,
        must_be=PATH,
    )
    max_tokens: int = flag(
        "tokens per review read in training, special tokens included; longer reviews are truncated",
        96,
        must_be=between(8, 512, " (the usual encoder's position limit)"),
    )
    score_tokens: int = flag(
        "tokens read at prediction time (at least --max-tokens; 0 = same)",
        0,
        must_be=between(0, 512),
    )
    head_share: float = flag(
        "share of the kept tokens that comes from the start of a review; the rest is from its end",
        0.25,
        must_be=SHARE,
    )
    epochs: int = flag(
        "maximum number of epochs",
        1,
        must_be=between(1, 100),
    )
    batch_size: int = flag(
        "reviews per step",
        32,
        must_be=between(1, 4_096),
    )
    learning_rate: float = flag(
        "peak learning rate of AdamW",
        3e-4,
        must_be=between(1e-8, 1.0),
    )
    weight_decay: float = flag(
        "weight decay of AdamW",
        0.01,
        must_be=SHARE,
    )
    lexical: bool = flag(
        "add a linear model that reads all tokens of a review, also truncated ones", True
    )
    pairs: int = flag(
        "hash buckets for pairs of adjacent tokens in the linear model; 0 = single tokens only",
        2**20,
        must_be=between(0, 2**26),
    )
    pooling: str = flag(
        "mean of all token states, or the architecture's own ([CLS])", "mean", ("mean", "own")
    )
    schedule: str = flag("learning rate after the warm-up", "linear", ("linear", "constant"))
    warmup_share: float = flag(
        "share of all steps in which the learning rate rises",
        0.1,
        must_be=SHARE,
    )
    freeze_layers: int = flag(
        "layers that are not trained: -1 none, 0 embeddings, n embeddings and first n layers, "
        "-2 embeddings and a third of the layers, -3 embeddings and half",
        FREEZE_HALF,
        must_be=between(FREEZE_HALF, 100),
    )
    dropout: float = flag(
        "dropout of every layer; -1 = the backbone's own",
        0.0,
        must_be=DROPOUT,
    )
    patience: int = flag(
        "stop after this many epochs without a lower validation loss",
        2,
        must_be=between(1, 100),
    )
    seed: int = flag(
        "random seed of the new classification layer, the batches and dropout",
        42,
        must_be=between(0, 2**32 - 1),
    )
    precision: str = flag(
        "arithmetic; auto = bf16 if it is measured to be clearly faster here, else fp32",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = flag(
        "auto = a GPU if there is one; cuda = stop if there is none", "auto", DEVICES
    )
    threads: int = flag(
        "CPU threads, 0 = torch's choice; only equal numbers give bit-identical weights",
        0,
        must_be=between(0, 1_024),
    )
    processes: int = flag(
        "processes that divide each batch and the threads; 2 or more start by TorchDistributor",
        1,
        must_be=between(1, 1_024),
    )

    def n_steps(self, n_rows: int) -> int:
        """Return the number of steps of all epochs together."""
        return math.ceil(n_rows / self.batch_size) * self.epochs


# Its accuracy and its time are in BENCHMARKS.md.
BEST_PRESET = TrainSettings(
    max_tokens=192,
    score_tokens=256,
    freeze_layers=FREEZE_A_THIRD,
    learning_rate=2.5e-4,
)
# The settings of the project that this one started from: BERT-tiny on the first 128 tokens, at a
# constant learning rate, with the dropout as published.
SEED_PRESET = TrainSettings(
    backbone="prajjwal1/bert-tiny",
    max_tokens=128,
    head_share=1.0,
    epochs=10,
    batch_size=64,
    learning_rate=2e-5,
    lexical=False,
    pooling="own",
    schedule="constant",
    warmup_share=0.0,
    freeze_layers=FREEZE_NOTHING,
    dropout=KEEP_DROPOUT,
    patience=10,
    precision="fp32",
)
PRESETS = {"best": BEST_PRESET, "seed": SEED_PRESET}


def n_frozen_layers(freeze_layers: int, n_layers: int) -> int:
    """Return how many of the layers --freeze-layers freezes."""
    if freeze_layers in FRACTIONS:
        return n_layers // FRACTIONS[freeze_layers]
    return max(freeze_layers, 0)

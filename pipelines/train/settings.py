"""Training settings, which are flags of jobs/train.py, and their presets."""

import math
from dataclasses import dataclass

from pipelines.cli import flag
from pipelines.model.backbone import EMBEDDED

KEEP_DROPOUT = -1.0
FREEZE_NOTHING, FREEZE_A_THIRD, FREEZE_HALF = -1, -2, -3
FRACTIONS = {FREEZE_A_THIRD: 3, FREEZE_HALF: 2}  # one layer in n is frozen


@dataclass(frozen=True)
class TrainSettings:
    """All settings that change the weights. DECISIONS.md gives the reasons for the defaults."""

    backbone: str = flag(f"{EMBEDDED} (packaged), a directory, or a model of the hub", EMBEDDED)
    max_tokens: int = flag(
        "tokens per review read in training, special tokens included; longer reviews are truncated",
        96,
    )
    score_tokens: int = flag("tokens read at prediction time (at least --max-tokens; 0 = same)", 0)
    head_share: float = flag(
        "share of the kept tokens that comes from the start of a review; the rest is from its end",
        0.25,
    )
    epochs: int = flag("maximum number of epochs", 1)
    batch_size: int = flag("reviews per step", 32)
    learning_rate: float = flag("peak learning rate of AdamW", 3e-4)
    weight_decay: float = flag("weight decay of AdamW", 0.01)
    lexical: bool = flag(
        "add a linear model that reads all tokens of a review, also truncated ones", True
    )
    pairs: int = flag(
        "hash buckets for pairs of adjacent tokens in the linear model; 0 = single tokens only",
        2**20,
    )
    pooling: str = flag(
        "mean of all token states, or the architecture's own ([CLS])", "mean", ("mean", "own")
    )
    schedule: str = flag("learning rate after the warm-up", "linear", ("linear", "constant"))
    warmup_share: float = flag("share of all steps in which the learning rate rises", 0.1)
    freeze_layers: int = flag(
        "layers that are not trained: -1 none, 0 embeddings, n embeddings and first n layers, "
        "-2 embeddings and a third of the layers, -3 embeddings and half",
        FREEZE_HALF,
    )
    dropout: float = flag("dropout of every layer; -1 = the backbone's own", 0.0)
    patience: int = flag("stop after this many epochs without a lower validation loss", 2)
    seed: int = flag("random seed of the new classification layer, the batches and dropout", 42)
    precision: str = flag(
        "arithmetic; auto = bf16 if it is measured to be clearly faster here, else fp32",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    threads: int = flag(
        "CPU threads, 0 = torch's choice; only equal numbers give bit-identical weights", 0
    )
    processes: int = flag(
        "processes that divide each batch and the threads; 2 or more start by TorchDistributor", 1
    )

    def __post_init__(self) -> None:
        _require(
            "max_tokens",
            self.max_tokens,
            low=8,
            high=512,
            why=" (the usual encoder's position limit)",
        )
        _require("score_tokens", self.score_tokens, low=0, high=512)
        _require("head_share", self.head_share, low=0.0, high=1.0)
        _require("epochs", self.epochs, low=1, high=100)
        _require("batch_size", self.batch_size, low=1, high=4_096)
        _require("learning_rate", self.learning_rate, low=1e-8, high=1.0)
        _require("weight_decay", self.weight_decay, low=0.0, high=1.0)
        _require("pairs", self.pairs, low=0, high=2**26)
        _require("warmup_share", self.warmup_share, low=0.0, high=1.0)
        _require("freeze_layers", self.freeze_layers, low=FREEZE_HALF, high=100)
        _require("patience", self.patience, low=1, high=100)
        _require("seed", self.seed, low=0, high=2**32 - 1)
        _require("threads", self.threads, low=0, high=1_024)
        _require("processes", self.processes, low=1, high=1_024)
        if self.dropout != KEEP_DROPOUT:
            _require("dropout", self.dropout, low=0.0, high=0.9, why=" or -1 (the backbone's own)")

    def n_steps(self, n_rows: int) -> int:
        """Return the number of steps of all epochs together."""
        return math.ceil(n_rows / self.batch_size) * self.epochs


def _require(name: str, value: float, *, low: float, high: float, why: str = "") -> None:
    if not low <= value <= high:
        flag_name = name.replace("_", "-")
        raise ValueError(f"--{flag_name} must be {low:g}..{high:g}{why}, got {value:g}")


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

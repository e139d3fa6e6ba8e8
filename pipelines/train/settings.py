"""Training settings: the flags of jobs/train.py, and presets of them by name."""

import math
from dataclasses import dataclass

from pipelines.cli import flag
from pipelines.model.backbone import EMBEDDED

KEEP_DROPOUT = -1.0
FREEZE_NOTHING, FREEZE_A_THIRD, FREEZE_HALF = -1, -2, -3
SHARES = {FREEZE_A_THIRD: 3, FREEZE_HALF: 2}  # one layer in so many


@dataclass(frozen=True)
class TrainSettings:
    """Everything that changes the weights, apart from the rows. The defaults: DECISIONS.md."""

    backbone: str = flag(f"{EMBEDDED} (packaged), a directory, or a model of the hub", EMBEDDED)
    max_tokens: int = flag("tokens of a review that the encoder learns from, specials included", 96)
    score_tokens: int = flag("tokens that it predicts from; never fewer than --max-tokens", 0)
    head_share: float = flag(
        "share of the kept tokens taken from the review's head, the rest from its tail", 0.25
    )
    epochs: int = flag("most passes over the training rows", 1)
    batch_size: int = flag("reviews per step", 32)
    learning_rate: float = flag("peak rate of AdamW", 3e-4)
    weight_decay: float = flag("decay of AdamW", 0.01)
    lexical: bool = flag(
        "add a linear model over all of a review's tokens, those too that are cut away", True
    )
    pairs: int = flag(
        "buckets that it hashes pairs of neighbouring tokens to; 0 = tokens alone", 2**20
    )
    pooling: str = flag(
        "mean of the tokens' states, or the architecture's own ([CLS])", "mean", ("mean", "own")
    )
    schedule: str = flag("rate after the warm-up", "linear", ("linear", "constant"))
    warmup_share: float = flag("share of all steps in which the rate climbs to its peak", 0.1)
    freeze_layers: int = flag(
        "what is not trained: -1 nothing, 0 embeddings, n these and the first n layers, -2 a third of them, -3 half",
        FREEZE_HALF,
    )
    dropout: float = flag("dropout of every layer; -1 = the backbone's own", 0.0)
    patience: int = flag("epochs without a lower validation loss after which training stops", 2)
    seed: int = flag("seed of the head, the batches and dropout", 42)
    precision: str = flag(
        "auto = bf16 where it is measured to be clearly faster",
        "auto",
        choices=("auto", "fp32", "bf16"),
    )
    threads: int = flag(
        "CPU threads, 0 = torch's choice; weights are bit-identical only at equal counts", 0
    )
    processes: int = flag(
        "processes that share each batch and the threads; more than 1: by TorchDistributor", 1
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
        """Steps that all epochs over so many rows take."""
        return math.ceil(n_rows / self.batch_size) * self.epochs


def _require(name: str, value: float, *, low: float, high: float, why: str = "") -> None:
    if not low <= value <= high:
        flag_name = name.replace("_", "-")
        raise ValueError(f"--{flag_name} must be {low:g}..{high:g}{why}, got {value:g}")


# Quality per minute: BENCHMARKS.md.
BEST_PRESET = TrainSettings(
    max_tokens=192,
    score_tokens=256,
    freeze_layers=FREEZE_A_THIRD,
    learning_rate=2.5e-4,
)
# The seed's own: BERT-tiny on the first 128 tokens at a constant rate, dropout as published.
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
    """How many of the layers --freeze-layers leaves untrained: a number as it is, or a share of them."""
    if freeze_layers in SHARES:
        return n_layers // SHARES[freeze_layers]
    return max(freeze_layers, 0)

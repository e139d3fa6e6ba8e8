"""One training, from a snapshot to calibrated weights and test predictions: what train and reproduce both run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipelines.lake.snapshot import labels_of, open_snapshot, rows_of
from pipelines.model import classifier
from pipelines.model.classifier import Lexical, Policy, blended, probability_of
from pipelines.model.metrics import fit_blend
from pipelines.train import launch
from pipelines.train.encoder import load_for_training
from pipelines.train.lexical import fit_lexical
from pipelines.train.loop import EpochRow, Fit, OnStep, deterministic, fit, predicted, require_rows
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import predict_policy, tokenise_rows, train_policy
from schemas import SPLITS


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, how it came about, and what it says of the held-out rows."""

    model: Any
    tokenizer: Tokenizer
    policy: Policy
    lexical: Lexical | None
    fitted: Fit
    n_rows: dict[str, int]  # by split
    valid_labels: NDArray[np.int64]
    valid_probability: NDArray[np.float64]
    test_rows: pa.Table
    test_labels: NDArray[np.int64]
    test_probability: NDArray[np.float64]
    test_parts: dict[
        str, NDArray[np.bool_]
    ]  # by part of the model: the rows that it alone would call positive

    def save(self, directory: Path) -> None:
        """Write the files of the classifier."""
        classifier.save(directory, self.model, self.tokenizer, self.policy, self.lexical)

    @property
    def test_predictions(self) -> NDArray[np.int64]:
        """0 or 1 for each test row, at the policy's threshold."""
        return (self.test_probability >= self.policy.threshold).astype(np.int64)


def train_model(
    snapshot: Path,
    directory: Path,
    settings: TrainSettings,
    on_step: OnStep = lambda *_: None,
    on_epoch: Callable[[EpochRow], None] = lambda _: None,
) -> TrainedModel:
    """Train the backbone in `directory` and the lexical part on the snapshot's splits, blend them, predict the test.

    Equal snapshot, backbone, settings and threads give bit-identical weights on the same kind of machine. With more
    than one process, the encoder is trained outside this one; all else is the same.
    """
    n_tokens = predict_policy(settings).max_tokens
    model, tokenizer = load_for_training(directory, settings.seed, settings.dropout, n_tokens)
    whole_snapshot = open_snapshot(snapshot)
    rows = {split: rows_of(whole_snapshot, split) for split in SPLITS}
    labels = {split: labels_of(rows[split]) for split in SPLITS}
    policies = dict.fromkeys(SPLITS, predict_policy(settings)) | {"train": train_policy(settings)}
    tokenised = {split: tokenise_rows(rows[split], tokenizer, policies[split]) for split in SPLITS}
    seen, whole = ({split: tokenised[split][part] for split in SPLITS} for part in (0, 1))
    require_rows(seen, labels)
    vocabulary = tokenizer.get_vocab_size()
    lexical = (
        fit_lexical(whole["train"], labels["train"], vocabulary, settings.pairs)
        if settings.lexical
        else None
    )
    margins = {
        split: lexical.margin(whole[split]) if lexical else np.zeros(len(labels[split]))
        for split in ("validation", "test")
    }
    with deterministic(settings):  # the threads count in predictions too
        if settings.processes > 1:
            fitted = launch.fit_in_processes(
                model, tokenizer, snapshot, settings, on_step, on_epoch
            )
        else:
            learned_from = seen["train"], labels["train"], seen["validation"], labels["validation"]
            fitted = fit(model, *learned_from, settings, on_step, on_epoch)
        blend = fit_blend(fitted.valid_logits, margins["validation"], labels["validation"])
        temperature, weight, bias = (
            blend[name] for name in ("temperature", "lexical_weight", "bias")
        )
        policy = replace(
            predict_policy(settings), temperature=temperature, lexical_weight=weight, bias=bias
        )
        test_logits = predicted(model, seen["test"], settings, "test")
    valid, test = (
        probability_of(blended(logits, margins[split], policy), policy.temperature)
        for split, logits in (("validation", fitted.valid_logits), ("test", test_logits))
    )
    parts = {"encoder": test_logits[:, 1] > test_logits[:, 0], "lexical": margins["test"] > 0}
    if lexical is None:
        del parts["lexical"]
    n_rows = {split: len(labels[split]) for split in SPLITS}
    return TrainedModel(
        model, tokenizer, policy, lexical, fitted, n_rows, labels["validation"], valid, rows["test"], labels["test"],
        test, parts,
    )  # fmt: skip

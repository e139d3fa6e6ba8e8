"""One training, from a snapshot to a calibrated model and its test predictions.

Both jobs/train.py and jobs/reproduce.py call it.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipelines.lake.snapshot import open_snapshot, rows_of
from pipelines.model import classifier
from pipelines.model.classifier import Lexical, Policy, blended, probability_of
from pipelines.model.metrics import fit_blend
from pipelines.train import launch
from pipelines.train.device import described
from pipelines.train.encoder import load_for_training
from pipelines.train.lexical import fit_lexical
from pipelines.train.loop import Fit, OnEpoch, OnStep, deterministic, fit, predicted
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import (
    TokenisedSplit,
    predict_policy,
    require_rows,
    tokenise_split,
    train_policy,
)

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, the history of its training, and its predictions of held-out rows."""

    model: Any
    tokenizer: Tokenizer
    policy: Policy
    lexical: Lexical | None
    fitted: Fit
    n_rows: dict[str, int]  # by split
    valid_labels: NDArray[np.int64]  # (N_validation,)
    valid_probability: NDArray[np.float64]  # (N_validation,)
    test_rows: pa.Table  # N_test rows of gold.reviews
    test_labels: NDArray[np.int64]  # (N_test,)
    test_probability: NDArray[np.float64]  # (N_test,)
    # By part of the model: (N_test,) True for the rows that this part alone predicts positive.
    test_parts: dict[str, NDArray[np.bool_]]

    def save(self, directory: Path) -> None:
        """Write the files of the classifier."""
        classifier.save(directory, self.model, self.tokenizer, self.policy, self.lexical)

    @property
    def test_predictions(self) -> NDArray[np.int64]:
        """Prediction, 0 or 1, of each test row, (N_test,), at the policy's threshold."""
        return (self.test_probability >= self.policy.threshold).astype(np.int64)


def train_model(
    snapshot: Path,
    directory: Path,
    settings: TrainSettings,
    on_step: OnStep = lambda *_: None,
    on_epoch: OnEpoch = lambda _: None,
) -> TrainedModel:
    """Train the backbone in `directory` and the lexical part, blend them, predict the test split.

    Equal snapshot, backbone, settings and threads give bit-identical weights on machines of the
    same kind. With several processes, only the encoder is trained outside this one.
    """
    log.info("training on %s", described(settings.device))
    policy = predict_policy(settings)
    model, tokenizer = load_for_training(
        directory, settings.seed, settings.dropout, policy.max_tokens
    )
    reviews = open_snapshot(snapshot)
    test_rows = rows_of(reviews, "test")
    train = tokenise_split(rows_of(reviews, "train"), tokenizer, train_policy(settings))
    validation = tokenise_split(rows_of(reviews, "validation"), tokenizer, policy)
    test = tokenise_split(test_rows, tokenizer, policy)
    splits = {"train": train, "validation": validation, "test": test}
    for name, split in splits.items():
        require_rows(name, split.for_encoder)
    lexical = None
    if settings.lexical:
        lexical = fit_lexical(
            train.full,
            train.labels,
            n_tokens=tokenizer.get_vocab_size(),
            n_pairs=settings.pairs,
        )
    valid_margin = _margin(lexical, validation)
    test_margin = _margin(lexical, test)
    with deterministic(settings):  # the number of threads changes predictions too
        if settings.processes > 1:
            fit_encoder = partial(launch.fit_in_processes, model, tokenizer, snapshot=snapshot)
        else:
            fit_encoder = partial(fit, model, train.for_encoder, validation=validation.for_encoder)
        fitted = fit_encoder(settings=settings, on_step=on_step, on_epoch=on_epoch)
        blend = fit_blend(fitted.valid_logits, valid_margin, validation.labels)
        policy = replace(
            policy,
            temperature=blend["temperature"],
            lexical_weight=blend["lexical_weight"],
            bias=blend["bias"],
        )
        test_logits = predicted(model, test.encoder, settings=settings, title="test")
    test_parts = {"encoder": test_logits[:, 1] > test_logits[:, 0]}
    if lexical is not None:
        test_parts["lexical"] = test_margin > 0
    return TrainedModel(
        model=model,
        tokenizer=tokenizer,
        policy=policy,
        lexical=lexical,
        fitted=fitted,
        n_rows={name: len(split.labels) for name, split in splits.items()},
        valid_labels=validation.labels,
        valid_probability=_probability(fitted.valid_logits, valid_margin, policy),
        test_rows=test_rows,
        test_labels=test.labels,
        test_probability=_probability(test_logits, test_margin, policy),
        test_parts=test_parts,
    )


def _margin(lexical: Lexical | None, split: TokenisedSplit) -> NDArray[np.float64]:
    """Return the lexical margin of each review, (N,); 0 without a lexical part."""
    return lexical.margin(split.full) if lexical else np.zeros(len(split.labels))


def _probability(
    logits: NDArray[np.float32], margin: NDArray[np.float64], policy: Policy
) -> NDArray[np.float64]:
    """Return P(positive) of each review, (N,), from logits, (N, 2), and lexical margins, (N,)."""
    return probability_of(blended(logits, margin, policy), policy.temperature)

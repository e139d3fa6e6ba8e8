"""Training: one epoch over the same reviews and tokens, from texts to a trained encoder.

python -m tests.benchmarks.training ours 960
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from pipelines.model import backbone
from pipelines.model.classifier import (
    Policy,
    best_device,
    faster_precision,
    predict_logits,
    tokenise,
)
from pipelines.model.metrics import cross_entropy
from pipelines.train.encoder import load_for_training
from pipelines.train.loop import fit
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import LabelledRows, predict_policy, train_policy
from tests.benchmarks.compare import Program, alternate, table
from tests.benchmarks.plain import plain_model, plain_tokenizer
from tests.benchmarks.reviews import SEED, packaged_reviews

MAX_TOKENS = 128
SEED_RATE = 2e-5
SEED_BATCH_SIZE = 64
# The best rate for all layers (DECISIONS.md). Ours freezes half of them and uses a higher one.
RATE_FOR_ALL_LAYERS = 1.5e-4
N_REVIEWS = 800
N_HELD_OUT = 800
OURS = "jobs/train.py"
Labels = NDArray[np.int64]  # (N,) 0 or 1
Trained = tuple[Any, Policy]  # the model, and the policy by which it predicts


def seed_loop(texts: list[str], labels: Labels) -> Trained:
    """Train as the seed notebook does, on our backbone: fp32, each review padded to the limit."""
    tokenizer = plain_tokenizer()
    model = plain_model()

    class Reviews(Dataset[dict[str, torch.Tensor]]):
        """Reviews that are tokenised one by one, when they are read."""

        def __len__(self) -> int:
            return len(texts)

        def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
            encoded = tokenizer(
                texts[row],
                max_length=MAX_TOKENS,
                padding="max_length",
                truncation=True,
                return_tensors="pt",
            )
            return {
                "input_ids": encoded["input_ids"][0],  # (MAX_TOKENS,)
                "attention_mask": encoded["attention_mask"][0],  # (MAX_TOKENS,)
                "labels": torch.tensor(labels[row]),  # ()
            }

    optimizer = torch.optim.AdamW(model.parameters(), lr=SEED_RATE)
    model.train()
    for batch in DataLoader(Reviews(), batch_size=SEED_BATCH_SIZE, shuffle=True):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model, Policy(MAX_TOKENS, head_share=1.0, precision="fp32")


def trainer(texts: list[str], labels: Labels) -> Trained:
    """Train by Hugging Face's Trainer with good settings: bf16, batches of similar length."""
    tokenizer = plain_tokenizer()
    encoded = tokenizer(texts, max_length=MAX_TOKENS, truncation=True)["input_ids"]
    rows = [
        {"input_ids": ids, "labels": int(label)} for ids, label in zip(encoded, labels, strict=True)
    ]
    model = plain_model()
    our_settings = TrainSettings()
    with tempfile.TemporaryDirectory() as directory_of_runs:
        arguments = TrainingArguments(
            directory_of_runs,
            num_train_epochs=1,
            per_device_train_batch_size=our_settings.batch_size,
            learning_rate=RATE_FOR_ALL_LAYERS,
            warmup_steps=our_settings.warmup_share,
            bf16=faster_precision(best_device().type) == "bf16",
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
        )
        collator = DataCollatorWithPadding(tokenizer)
        Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    return model, Policy(MAX_TOKENS, head_share=1.0)


def ours(texts: list[str], labels: Labels) -> Trained:
    """Train with the defaults of jobs/train.py at the same number of tokens."""
    settings = TrainSettings(max_tokens=MAX_TOKENS)
    model, tokenizer = load_for_training(
        backbone.find(settings.backbone),
        settings.seed,
        dropout=settings.dropout,
        max_tokens=MAX_TOKENS,
    )
    rows, _, _ = tokenise(tokenizer, texts, train_policy(settings))
    fit(
        model,
        LabelledRows(rows, labels),
        # One row, since the validation is not part of the comparison.
        validation=LabelledRows(rows[:1], labels[:1]),
        settings=settings,
    )
    return model, predict_policy(settings)


# By key, the name in the table and a function that trains.
PROGRAMS: dict[str, tuple[str, Callable[[list[str], Labels], Trained]]] = {
    "seed": ("the seed notebook's loop: fp32, padded", seed_loop),
    "trainer": ("Hugging Face Trainer: bf16, grouped by length", trainer),
    "ours": (OURS, ours),
}


def programs(n_reviews: int) -> list[Program]:
    """Return the three programs, to run over the first `n_reviews` reviews."""
    return [Program(name, "training", [key, str(n_reviews)]) for key, (name, _) in PROGRAMS.items()]


def bench(_directory: Path, runs: int) -> list[str]:
    """Compare our training with the seed notebook's loop and with Hugging Face's Trainer."""
    medians = alternate(programs(N_REVIEWS), runs)
    our_seconds = medians[OURS]["seconds"]
    rows = [
        [
            name,
            f"{figures['seconds']:.1f}",
            f"{N_REVIEWS / figures['seconds']:.1f}",
            f"{figures['seconds'] / our_seconds:.2f}",
            f"{figures['validation_loss']:.4f}",
            f"{figures['accuracy']:.3f}",
        ]
        for name, figures in medians.items()
    ]
    words = (
        f"One epoch of MiniLM-L6 over {N_REVIEWS:,} reviews of at most {MAX_TOKENS} tokens, from "
        f"texts to a trained encoder, tokenisation included. Medians of {runs} runs. Loss and "
        f"accuracy are measured on {N_HELD_OUT:,} other reviews."
    )
    heads = ["", "s", "reviews/s", "relative time", "loss", "accuracy"]
    return [words, "", *table(heads, rows)]


def main(key: str, n_reviews: int) -> None:
    """Run one program and time it; then measure its encoder on held-out reviews."""
    texts, labels = packaged_reviews(n_reviews + N_HELD_OUT)
    _, train = PROGRAMS[key]
    torch.manual_seed(SEED)
    started_s = time.perf_counter()
    model, policy = train(texts[:n_reviews], labels[:n_reviews])
    seconds = time.perf_counter() - started_s
    tokenizer = backbone.load_tokenizer(backbone.find(backbone.EMBEDDED))
    held_out, _, _ = tokenise(tokenizer, texts[n_reviews:], policy)
    logits = predict_logits(model, held_out, policy)
    accuracy = float((logits.argmax(axis=1) == labels[n_reviews:]).mean())
    loss = cross_entropy(logits, labels[n_reviews:])
    print(json.dumps({"seconds": seconds, "validation_loss": loss, "accuracy": accuracy}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

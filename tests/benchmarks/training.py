"""Training: one pass over the same reviews at the same number of tokens, from texts to a trained encoder.

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
from pipelines.train.tokens import predict_policy, train_policy
from tests.benchmarks.compare import Program, alternate, table
from tests.benchmarks.plain import plain_model, plain_tokenizer
from tests.benchmarks.reviews import SEED, packaged_reviews

MAX_TOKENS = 128
RATE_FOR_ALL_LAYERS = 1.5e-4  # DECISIONS.md; ours freezes half of them, at a higher rate
N_REVIEWS, HELD_OUT = 800, 800
OURS = "jobs/train.py"
Labels = NDArray[np.int64]


def seed_loop(texts: list[str], labels: Labels) -> tuple[Any, Policy]:
    """The seed's loop, on our backbone: fp32, every review padded to the limit and tokenised when it is asked for."""
    tokenizer, model = plain_tokenizer(), plain_model()

    class Reviews(Dataset[dict[str, torch.Tensor]]):
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
            return {name: encoded[name][0] for name in ("input_ids", "attention_mask")} | {
                "labels": torch.tensor(labels[row])
            }

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    model.train()
    for batch in DataLoader(Reviews(), batch_size=64, shuffle=True):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model, Policy(MAX_TOKENS, head_share=1.0, precision="fp32")


def trainer(texts: list[str], labels: Labels) -> tuple[Any, Policy]:
    """Hugging Face's Trainer as a capable user sets it: bf16, batches of similar length, a rate for all six layers."""
    tokenizer, model = plain_tokenizer(), plain_model()
    encoded = tokenizer(texts, max_length=MAX_TOKENS, truncation=True)["input_ids"]
    rows = [
        {"input_ids": ids, "labels": int(label)} for ids, label in zip(encoded, labels, strict=True)
    ]
    ours = TrainSettings()
    with tempfile.TemporaryDirectory() as directory_of_runs:
        arguments = TrainingArguments(
            directory_of_runs, num_train_epochs=1, per_device_train_batch_size=ours.batch_size,
            learning_rate=RATE_FOR_ALL_LAYERS, warmup_steps=ours.warmup_share,
            bf16=faster_precision(best_device().type) == "bf16",
            train_sampling_strategy="group_by_length", save_strategy="no", logging_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=not torch.accelerator.is_available(),
        )  # fmt: skip
        collator = DataCollatorWithPadding(tokenizer)
        Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    return model, Policy(MAX_TOKENS, head_share=1.0)


def ours(texts: list[str], labels: Labels) -> tuple[Any, Policy]:
    """The defaults of jobs/train.py at the same number of tokens."""
    settings = TrainSettings(max_tokens=MAX_TOKENS)
    directory = backbone.find(settings.backbone)
    model, tokenizer = load_for_training(directory, settings.seed, settings.dropout, MAX_TOKENS)
    seen, _, _ = tokenise(tokenizer, texts, train_policy(settings))
    fit(model, seen, labels, seen[:1], labels[:1], settings)
    return model, predict_policy(settings)


PROGRAMS: dict[str, tuple[str, Callable[[list[str], Labels], tuple[Any, Policy]]]] = {
    "seed": ("the seed's loop: fp32, padded", seed_loop),
    "trainer": ("Hugging Face Trainer: bf16, grouped by length", trainer),
    "ours": (OURS, ours),
}


def programs(n_reviews: int) -> list[Program]:
    """The three programs over so many reviews."""
    return [Program(name, "training", [key, str(n_reviews)]) for key, (name, _) in PROGRAMS.items()]


def bench(_directory: Path, runs: int) -> list[str]:
    """The three programs in turn."""
    found = alternate(programs(N_REVIEWS), runs)
    ours = found[OURS]["seconds"]
    rows = [
        [
            name,
            f"{one['seconds']:.1f}",
            f"{N_REVIEWS / one['seconds']:.1f}",
            f"{one['seconds'] / ours:.2f}",
            f"{one['validation_loss']:.4f}",
            f"{one['accuracy']:.3f}",
        ]
        for name, one in found.items()
    ]
    words = (
        f"{N_REVIEWS:,} reviews once, at most {MAX_TOKENS} tokens each, MiniLM-L6, from texts to a trained encoder, "
        f"tokenisation included; medians of {runs} runs. Loss and accuracy: on {HELD_OUT:,} others."
    )
    return [words, "", *table(["", "s", "reviews/s", "times ours", "loss", "accuracy"], rows)]


def main(key: str, n_reviews: int) -> None:
    """Run one program, time it, then ask its encoder for its loss on held-out reviews."""
    texts, labels = packaged_reviews(n_reviews + HELD_OUT)
    torch.manual_seed(SEED)
    started = time.perf_counter()
    model, policy = PROGRAMS[key][1](texts[:n_reviews], labels[:n_reviews])
    seconds = time.perf_counter() - started
    tokenizer = backbone.load_tokenizer(backbone.find(backbone.EMBEDDED))
    held_out, _, _ = tokenise(tokenizer, texts[n_reviews:], policy)
    logits = predict_logits(model, held_out, policy)
    accuracy = float((logits.argmax(axis=1) == labels[n_reviews:]).mean())
    loss = cross_entropy(logits, labels[n_reviews:])
    print(json.dumps({"seconds": seconds, "validation_loss": loss, "accuracy": accuracy}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

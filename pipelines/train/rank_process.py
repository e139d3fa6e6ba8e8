"""The code that each process of a multi-process training runs. Started by launch."""

import dataclasses
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import distributed

from pipelines import cli, program
from pipelines.errors import JobError
from pipelines.lake.scratch import in_use
from pipelines.lake.snapshot import labels_of, open_snapshot, rows_of
from pipelines.model import classifier
from pipelines.train.device import training_device
from pipelines.train.loop import fit
from pipelines.train.ranks import Ranks, ranks_of
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import (
    LabelledRows,
    open_shards,
    predict_policy,
    tokenise_rows,
    train_policy,
    write_shard,
)

# How long a rank waits for another one: far longer than a step, or than tokenising a shard.
LONGEST_WAIT = timedelta(minutes=10)


def train_rank(
    snapshot: str, directory: str, meeting: str, threads: int, params: Mapping[str, str]
) -> None:
    """Entry point of one training process. TorchDistributor passes the arguments by pickle."""
    place = Path(directory)
    ranks = ranks_of(os.environ)
    settings = dataclasses.replace(cli.from_params(TrainSettings, params), threads=threads)
    backend = "gloo"
    torch.set_num_threads(threads)
    try:
        if training_device(settings.device).type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            backend = "cpu:gloo,cuda:nccl"
        # On one machine the ranks meet through a file, on a cluster at rank 0's address from Spark.
        store = None
        if meeting:  # FileStore has no type hints
            store = distributed.FileStore(f"{meeting}/ranks", ranks.n)  # type: ignore[attr-defined]
        distributed.init_process_group(
            backend,
            timeout=LONGEST_WAIT,
            world_size=ranks.n,
            rank=ranks.rank,
            store=store,
        )
        with in_use(Path(snapshot).parent):
            _train(Path(snapshot), place, settings=settings, ranks=ranks)
        distributed.destroy_process_group()
    except (JobError, OSError) as error:
        fault = _noted(error)
        (place / f"fault-{ranks.rank}.json").write_text(json.dumps(fault), encoding="utf-8")
        raise


def _noted(error: JobError | OSError) -> dict[str, str]:
    """Describe an error for the launching process: the class to raise, and its message."""
    known = program.from_disk(error)
    if isinstance(known, JobError):
        return {"kind": type(known).__name__, "line": str(known)}
    return {"kind": "JobError", "line": program.one_line(known)}


def _train(snapshot: Path, directory: Path, *, settings: TrainSettings, ranks: Ranks) -> None:
    """Write this rank's shards, train, and let rank 0 save the result."""
    start = classifier.load(directory / "start", training_device(settings.device))
    write_shards(
        open_snapshot(snapshot),
        directory,
        tokenizer=start.tokenizer,
        settings=settings,
        ranks=ranks,
    )
    distributed.barrier()  # until all ranks have written their shards
    # Opened once, since a Unity Catalog volume does not allow appending.
    events_file = directory / "events.jsonl" if ranks.rank == 0 else Path(os.devnull)
    with events_file.open("w", encoding="utf-8") as events:

        def note(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()
            print("event", flush=True)  # wakes the follower

        fitted = fit(
            start.model,
            _whole_split(directory, "train", ranks),
            validation=_whole_split(directory, "validation", ranks),
            settings=settings,
            on_step=lambda *values: note(step=values),
            on_epoch=lambda row: note(epoch=dataclasses.asdict(row)),
            ranks=ranks,
        )
    ranks.require_equal_weights(start.model)
    if ranks.rank == 0:
        policy = predict_policy(settings)
        classifier.save(directory / "trained", start.model, start.tokenizer, policy)
        np.save(directory / "valid_logits.npy", fitted.valid_logits)
        written = {
            "history": [dataclasses.asdict(row) for row in fitted.history],
            "best_epoch": fitted.best_epoch,
            "n_steps": fitted.n_steps,
        }
        (directory / "fit.json").write_text(json.dumps(written), encoding="utf-8")


def _whole_split(directory: Path, split: str, ranks: Ranks) -> LabelledRows:
    """Open the shards of all ranks as one split."""
    return open_shards([directory / f"{split}-{rank}" for rank in range(ranks.n)])


def write_shards(
    snapshot: pa.Table,
    directory: Path,
    *,
    tokenizer: Tokenizer,
    settings: TrainSettings,
    ranks: Ranks,
) -> None:
    """Tokenise this rank's rows of the train and validation splits, for all ranks to read."""
    policies = {"train": train_policy(settings), "validation": predict_policy(settings)}
    for split, policy in policies.items():
        rows = rows_of(snapshot, split)
        own = ranks.shard_of(rows.num_rows)
        shard = rows.slice(own.start, own.stop - own.start)
        tokens, _ = tokenise_rows(shard, tokenizer, policy)
        write_shard(directory / f"{split}-{ranks.rank}", tokens, labels_of(shard))

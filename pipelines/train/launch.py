"""Training in several processes, which TorchDistributor starts; each reads its own shard of the snapshot.

What goes to them and comes back are files in one directory beside the snapshot, which all of them can read:
start/ the model to train, <split>-<rank>/ the token rows of a shard, events.jsonl what rank 0 tells as it goes,
fault-<rank>.json why a rank gave up, trained/ the best epoch's model, fit.json and valid_logits.npy the rest.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from tokenizers import Tokenizer
from torch import distributed
from tqdm import tqdm

from pipelines import cli, errors, program
from pipelines.errors import InputError, JobError, SetupError
from pipelines.lake.snapshot import labels_of, open_snapshot, rows_of
from pipelines.model import classifier
from pipelines.model.classifier import best_device
from pipelines.provenance import ROOT
from pipelines.train.loop import EpochRow, Fit, OnStep, fit
from pipelines.train.ranks import Ranks, ranks_of
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import (
    open_shards,
    predict_policy,
    tokenise_rows,
    train_policy,
    write_shard,
)

OnEpoch = Callable[[EpochRow], None]
MOST_WAIT = timedelta(
    minutes=10
)  # for another rank: far more than a step or a shard's tokenisation takes


def fit_in_processes(
    model: Any,
    tokenizer: Tokenizer,
    snapshot: Path,
    settings: TrainSettings,
    on_step: OnStep,
    on_epoch: OnEpoch,
) -> Fit:
    """Train as `fit` does, on the same batches, each shared by `settings.processes` processes. Needs a Spark session.

    Raises the JobError of the rank that gave up first; SetupError where one was killed.
    """
    n_steps = settings.n_steps(rows_of(open_snapshot(snapshot), "train").num_rows)
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=snapshot.parent.absolute()) as place:
        directory = Path(place)
        classifier.save(directory / "start", model, tokenizer, train_policy(settings))
        with tqdm(
            total=n_steps, desc=f"train in {settings.processes} processes", unit=" steps"
        ) as bar:

            def step(number: int, loss: float, rate: float) -> None:
                on_step(number, loss, rate)
                bar.update()

            _run(
                directory, snapshot, settings, _Follower(directory / "events.jsonl", step, on_epoch)
            )
        trained = classifier.load(directory / "trained", best_device()).model
        model.load_state_dict(trained.state_dict())
        model.to(trained.device).eval()
        found = json.loads((directory / "fit.json").read_text(encoding="utf-8"))
        history = [EpochRow(**row) for row in found["history"]]
        return Fit(
            history, found["best_epoch"], np.load(directory / "valid_logits.npy"), found["n_steps"]
        )


class _Follower(io.StringIO):
    """The ranks' standard output. It is not shown; each line of it is a sign to look for what rank 0 has noted.

    Its last lines are kept, since torchrun says there how its ranks ended, and its exit status does not come through.
    """

    def __init__(self, events: Path, on_step: OnStep, on_epoch: OnEpoch) -> None:
        super().__init__()
        events.touch()
        self.events, self.on_step, self.on_epoch = events, on_step, on_epoch
        self.position = 0
        self.tail: deque[str] = deque(maxlen=200)
        self.here = Path.cwd()

    def write(self, text: str, /) -> int:
        """Called by TorchDistributor with each line."""
        self.tail.append(text)
        with contextlib.chdir(self.here):
            self.follow()
        return len(text)

    def follow(self) -> None:
        """Pass on the events since the last time; one that is not written to its end waits for the next."""
        with self.events.open("rb") as file:
            file.seek(self.position)
            while (line := file.readline()).endswith(b"\n"):
                self.position = file.tell()
                event = json.loads(line)
                if "step" in event:
                    self.on_step(*event["step"])
                else:
                    self.on_epoch(EpochRow(**event["epoch"]))


def _run(directory: Path, snapshot: Path, settings: TrainSettings, follower: _Follower) -> None:
    """Run all ranks to their end: on this machine, or on a cluster's workers, a Spark task each."""
    from pyspark.ml.torch.distributor import (
        TorchDistributor,
    )  # seconds to import, and the ranks have no need of it

    spark = SparkSession.active()
    n_gpus = torch.cuda.device_count()
    is_local = re.match(r"local(\[|$)", spark.conf.get("spark.master", "") or "") is not None
    is_here = is_local or 0 < settings.processes <= n_gpus
    if is_here and 0 < n_gpus < settings.processes:
        raise InputError(
            f"--processes must be 1..{n_gpus} (the GPUs of this machine), got {settings.processes}"
        )
    # Here the ranks see all GPUs and take one each; of workers, Spark says which GPU is whose.
    has_gpus = not is_here and int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0
    distributor = TorchDistributor(settings.processes, local_mode=is_here, use_gpu=has_gpus)
    distributor.logger.setLevel(logging.WARNING)
    params = {name: str(value) for name, value in cli.as_params(settings).items()}
    threads, elsewhere = _threads_of_each(settings), io.StringIO()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="meeting-") as meeting,
            contextlib.redirect_stdout(follower),
            _inherited(meeting, threads) if is_here else contextlib.redirect_stderr(elsewhere),
        ):
            places = str(snapshot.absolute()), str(directory), meeting if is_here else ""
            distributor.run(train_rank, *places, threads, params)
    except (RuntimeError, PySparkException) as error:
        error.add_note(
            output := "".join([*follower.tail, elsewhere.getvalue(), str(error)])
        )  # for --debug
        raise _fault(directory, settings.processes, output) from error
    follower.follow()  # what workers tell comes through the file alone, so at the end


def _threads_of_each(settings: TrainSettings) -> int:
    return max(1, (settings.threads or torch.get_num_threads()) // settings.processes)


@contextlib.contextmanager
def _inherited(meeting: str, threads: int) -> Iterator[None]:
    """The environment that ranks on this machine start with: our code, their threads, nothing beyond loopback.

    torchrun's own meeting point is a port that listens on every interface. The last two variables make it a file
    instead, but torchrun then takes its fixed endpoint `localhost:0` as the file's name, relative to its working
    directory. TorchDistributor passes no working directory on, so this process must change its own.
    """
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    path = [
        str(ROOT),
        *(
            str(Path(part).absolute())
            for part in os.environ.get("PYTHONPATH", "").split(":")
            if part
        ),
    ]
    variables = {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),  # the tokenizer's
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "PET_LOCAL_ADDR": "127.0.0.1",  # torchrun's MASTER_ADDR
        "PET_RDZV_CONF": "store_type=file",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with program.environment(**variables), contextlib.chdir(meeting):
        yield


def train_rank(
    snapshot: str, directory: str, meeting: str, threads: int, params: Mapping[str, str]
) -> None:
    """The life of one rank. Its arguments are plain, since TorchDistributor hands them over by pickle."""
    place, ranks = Path(directory), ranks_of(os.environ)
    settings = dataclasses.replace(cli.from_params(TrainSettings, params), threads=threads)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    torch.set_num_threads(threads)
    try:
        # On one machine the ranks meet in a file, else at the address that Spark gave the first.
        store = distributed.FileStore(f"{meeting}/ranks", ranks.n) if meeting else None  # type: ignore[attr-defined]
        distributed.init_process_group(backend, None, MOST_WAIT, ranks.n, ranks.rank, store)
        _train(Path(snapshot), place, settings, ranks)
        distributed.destroy_process_group()
    except (JobError, OSError) as error:
        is_ours = isinstance(error, JobError)
        kind = (
            type(error).__name__
            if is_ours
            else ("SetupError" if program.exit_code(error) == 5 else "JobError")
        )
        fault = {"kind": kind, "line": str(error) if is_ours else program.one_line(error)}
        (place / f"fault-{ranks.rank}.json").write_text(json.dumps(fault), encoding="utf-8")
        raise


def _train(snapshot: Path, directory: Path, settings: TrainSettings, ranks: Ranks) -> None:
    start = classifier.load(directory / "start", best_device())
    write_shards(open_snapshot(snapshot), directory, start.tokenizer, settings, ranks)
    distributed.barrier()  # from here on the shards of all are there
    (train, labels), (valid, valid_labels) = (
        open_shards([directory / f"{split}-{rank}" for rank in range(ranks.n)])
        for split in ("train", "validation")
    )
    # Kept open, since a Unity Catalog volume takes what is written in one go and refuses to append.
    with Path(directory / "events.jsonl" if ranks.rank == 0 else os.devnull).open(
        "w", encoding="utf-8"
    ) as events:

        def tell(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()
            print("told", flush=True)  # wakes the follower

        fitted = fit(
            start.model, train, labels, valid, valid_labels, settings,
            lambda *values: tell(step=values), lambda row: tell(epoch=dataclasses.asdict(row)), ranks,
        )  # fmt: skip
    ranks.require_equal_weights(start.model)
    if ranks.rank == 0:
        classifier.save(
            directory / "trained", start.model, start.tokenizer, predict_policy(settings)
        )
        np.save(directory / "valid_logits.npy", fitted.valid_logits)
        history = [dataclasses.asdict(row) for row in fitted.history]
        found = {"history": history, "best_epoch": fitted.best_epoch, "n_steps": fitted.n_steps}
        (directory / "fit.json").write_text(json.dumps(found), encoding="utf-8")


def write_shards(
    snapshot: pa.Table, directory: Path, tokenizer: Tokenizer, settings: TrainSettings, ranks: Ranks
) -> None:
    """Tokenise this rank's rows of the train and validation splits, and no others, for all ranks to map."""
    for split, policy in (
        ("train", train_policy(settings)),
        ("validation", predict_policy(settings)),
    ):
        rows = rows_of(snapshot, split)
        own = ranks.shard_of(rows.num_rows)
        shard = rows.slice(own.start, own.stop - own.start)
        tokens, _ = tokenise_rows(shard, tokenizer, policy)
        write_shard(directory / f"{split}-{ranks.rank}", tokens, labels_of(shard))


def _fault(directory: Path, n: int, output: str) -> JobError:
    """The error that a rank noted; else what torchrun says of the rank that failed first."""
    for file in sorted(directory.glob("fault-*.json")):
        noted = json.loads(file.read_text(encoding="utf-8"))
        kind: type[JobError] = getattr(errors, noted["kind"])
        return kind(noted["line"])
    ends = re.findall(r"rank +: (\d+).*?exitcode +: (-?\d+)", output, re.DOTALL)
    # A signal, which counts as negative, comes before what it caused in the others: a fault, or torchrun's SIGTERM.
    by_cause = sorted(
        ((int(code), int(rank)) for rank, code in ends),
        key=lambda end: (end[0] == -signal.SIGTERM, end),
    )
    if not by_cause:
        return JobError(
            f"training in {n} processes: no result, and no rank said why. Rerun with --debug."
        )
    code, rank = by_cause[0]
    if code < 0:
        return SetupError(
            f"training in {n} processes: rank {rank} was ended by signal {-code} ({signal.Signals(-code).name}), as "
            "the system does where memory runs out. Pass fewer --processes or a smaller --batch-size."
        )
    return JobError(
        f"training in {n} processes: rank {rank} ended with exit code {code}. Rerun with --debug for what it printed."
    )

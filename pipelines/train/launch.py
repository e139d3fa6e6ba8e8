"""Training in several processes, which TorchDistributor starts; each reads its own shard of the snapshot.

What goes to them and comes back are files in one directory beside the snapshot, which all of them can read:
start/ the model to train, <split>-<rank>/ the token rows of a shard, events.jsonl what rank 0 tells as it goes,
fault-<rank>.json why a rank gave up, trained/ the best epoch's model, fit.json and valid_logits.npy the rest.
"""

import contextlib
import io
import json
import logging
import os
import re
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from tokenizers import Tokenizer
from tqdm import tqdm

from pipelines import cli, errors, program
from pipelines.errors import InputError, JobError, SetupError
from pipelines.lake.snapshot import open_snapshot, rows_of
from pipelines.model import classifier
from pipelines.model.classifier import best_device
from pipelines.provenance import ROOT
from pipelines.train.loop import EpochRow, Fit, OnEpoch, OnStep
from pipelines.train.rank_process import train_rank
from pipelines.train.settings import TrainSettings
from pipelines.train.tokens import train_policy


def fit_in_processes(
    model: Any,
    tokenizer: Tokenizer,
    *,
    snapshot: Path,
    settings: TrainSettings,
    on_step: OnStep,
    on_epoch: OnEpoch,
) -> Fit:
    """Train as `fit` does, on the same batches, each shared by `settings.processes` processes. Needs a Spark session.

    Raises the JobError of the rank that gave up first; SetupError where one was killed.
    """
    n_rows = rows_of(open_snapshot(snapshot), "train").num_rows
    n_steps = settings.n_steps(n_rows)
    title = f"train in {settings.processes} processes"
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=snapshot.parent.absolute()) as place:
        directory = Path(place)
        classifier.save(directory / "start", model, tokenizer, train_policy(settings))
        with tqdm(total=n_steps, desc=title, unit=" steps") as bar:

            def step(number: int, loss: float, rate: float) -> None:
                on_step(number, loss, rate)
                bar.update()

            follower = _Follower(directory / "events.jsonl", step, on_epoch)
            _run(directory, snapshot, settings=settings, follower=follower)
        trained = classifier.load(directory / "trained", best_device()).model
        model.load_state_dict(trained.state_dict())
        model.to(trained.device).eval()
        written = json.loads((directory / "fit.json").read_text(encoding="utf-8"))
        return Fit(
            history=[EpochRow(**row) for row in written["history"]],
            best_epoch=written["best_epoch"],
            valid_logits=np.load(directory / "valid_logits.npy"),
            n_steps=written["n_steps"],
        )


class _Follower(io.StringIO):
    """The ranks' standard output. It is not shown; each line of it is a sign to look for what rank 0 has noted.

    Its last lines are kept, since torchrun says there how its ranks ended, and its exit status does not come through.
    """

    def __init__(self, events: Path, on_step: OnStep, on_epoch: OnEpoch) -> None:
        super().__init__()
        events.touch()
        self.events = events
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.position = 0  # in bytes, of the first event that was not passed on
        self.tail: deque[str] = deque(maxlen=200)
        self.directory = Path.cwd()

    def write(self, text: str, /) -> int:
        """Called by TorchDistributor with each line."""
        self.tail.append(text)
        with contextlib.chdir(self.directory):
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


def _run(directory: Path, snapshot: Path, *, settings: TrainSettings, follower: _Follower) -> None:
    """Run all ranks to their end: on this machine, or on a cluster's workers, a Spark task each."""
    # Seconds to import, and the ranks have no need of it.
    from pyspark.ml.torch.distributor import TorchDistributor

    spark = SparkSession.active()
    n_gpus = torch.cuda.device_count()
    master = spark.conf.get("spark.master", "") or ""
    is_local = re.match(r"local(\[|$)", master) is not None
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
    threads = _threads_of_each(settings)
    worker_errors = io.StringIO()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="meeting-") as meeting,
            contextlib.redirect_stdout(follower),
            _inherited(meeting, threads) if is_here else contextlib.redirect_stderr(worker_errors),
        ):
            distributor.run(
                train_rank,
                str(snapshot.absolute()),
                str(directory),
                meeting if is_here else "",
                threads,
                params,
            )
    except (RuntimeError, PySparkException) as error:
        output = "".join([*follower.tail, worker_errors.getvalue(), str(error)])
        error.add_note(output)  # for --debug
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
    given = [part for part in os.environ.get("PYTHONPATH", "").split(":") if part]
    path = [str(ROOT), *(str(Path(part).absolute()) for part in given)]
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


def _fault(directory: Path, n: int, output: str) -> JobError:
    """The error that a rank noted; else what torchrun says of the rank that failed first."""
    for file in sorted(directory.glob("fault-*.json")):
        noted = json.loads(file.read_text(encoding="utf-8"))
        kind: type[JobError] = getattr(errors, noted["kind"])
        return kind(noted["line"])
    ends = [
        (int(code), int(rank))
        for rank, code in re.findall(r"rank +: (\d+).*?exitcode +: (-?\d+)", output, re.DOTALL)
    ]
    if not ends:
        return JobError(
            f"training in {n} processes: no result, and no rank said why. Rerun with --debug."
        )
    # A signal, which counts as negative, comes before what it caused in the others: a fault, or torchrun's SIGTERM.
    code, rank = min(ends, key=lambda end: (end[0] == -signal.SIGTERM, end))
    if code < 0:
        name = signal.Signals(-code).name
        return SetupError(
            f"training in {n} processes: rank {rank} was ended by signal {-code} ({name}), as "
            "the system does where memory runs out. Pass fewer --processes or a smaller --batch-size."
        )
    return JobError(
        f"training in {n} processes: rank {rank} ended with exit code {code}. Rerun with --debug for what it printed."
    )

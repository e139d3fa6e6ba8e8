"""Training in several processes (ranks), started by TorchDistributor. Each reads its own shard.

They exchange files in a directory beside the snapshot, which all of them can read:

start/              the model to train
<split>-<rank>/     the token rows of a shard
events.jsonl        steps and epochs, written by rank 0
fault-<rank>.json   the error of a rank that failed
trained/            the model of the best epoch
fit.json            metrics of all epochs
valid_logits.npy    validation logits of the best epoch
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
from pipelines.provenance import python_path
from pipelines.train.device import training_device
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
    """Train like `fit`, with each batch divided among `settings.processes` processes.

    Needs an active Spark session. Raises the JobError of the first rank that failed, or SetupError
    if a rank was killed.
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
        trained = classifier.load(directory / "trained", training_device(settings.device)).model
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
    """Receives the ranks' standard output; each line triggers a read of rank 0's event file.

    The output is not shown. Its last lines are kept, since they say how torchrun's ranks ended;
    torchrun's exit status is not passed on.
    """

    def __init__(self, events: Path, on_step: OnStep, on_epoch: OnEpoch) -> None:
        super().__init__()
        events.touch()
        self.events = events
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.position = 0  # in bytes: the end of the last event that was passed on
        self.tail: deque[str] = deque(maxlen=200)
        self.directory = Path.cwd()

    def write(self, text: str, /) -> int:
        """Keep a line, then pass on new events. TorchDistributor calls this for each line."""
        self.tail.append(text)
        # Leave torchrun's directory (see _inherited): the caller's paths may be relative.
        with contextlib.chdir(self.directory):
            self.follow()
        return len(text)

    def follow(self) -> None:
        """Pass on new events; an event whose line is not complete yet waits for the next call."""
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
    """Run all ranks until they end: on this machine, or one Spark task per rank on a cluster."""
    # Takes seconds to import, and only training in several processes needs it.
    from pyspark.ml.torch.distributor import TorchDistributor

    spark = SparkSession.active()
    n_gpus = 0 if settings.device == "cpu" else torch.cuda.device_count()
    master = spark.conf.get("spark.master", "") or ""
    is_local = re.match(r"local(\[|$)", master) is not None
    is_here = is_local or 0 < settings.processes <= n_gpus
    if is_here and 0 < n_gpus < settings.processes:
        raise InputError(
            f"--processes must be 1..{n_gpus} (the GPUs of this machine), got {settings.processes}"
        )
    # On this machine the ranks see all GPUs and take one each; on a cluster Spark assigns them.
    n_assigned = 0 if is_here else int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0)
    has_gpus = n_assigned > 0 and settings.device != "cpu"
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
    follower.follow()  # workers of a cluster send no standard output, so the events come at the end


def _threads_of_each(settings: TrainSettings) -> int:
    return max(1, (settings.threads or torch.get_num_threads()) // settings.processes)


@contextlib.contextmanager
def _inherited(meeting: str, threads: int) -> Iterator[None]:
    """Set what ranks on this machine inherit: the path to our code, their threads, loopback only.

    By default torchrun opens a port on every network interface. The last two variables make it use
    a file instead. torchrun then takes its fixed endpoint `localhost:0` as the file's name,
    relative to its working directory. TorchDistributor has no parameter for a working directory,
    so this process must change its own.
    """
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    variables = {
        "PYTHONPATH": python_path(os.environ),
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
    """Return the error that a rank wrote, or else one from torchrun's output."""
    for file in sorted(directory.glob("fault-*.json")):
        fault = json.loads(file.read_text(encoding="utf-8"))
        kind: type[JobError] = getattr(errors, fault["kind"])
        return kind(fault["line"])
    ends = [
        (int(code), int(rank))
        for rank, code in re.findall(r"rank +: (\d+).*?exitcode +: (-?\d+)", output, re.DOTALL)
    ]
    if not ends:
        return JobError(
            f"training in {n} processes: failed, and no rank reported an error. Rerun with --debug."
        )
    # Signals are negative, so a killed rank precedes the ranks that failed because of it.
    # torchrun ends those by SIGTERM, which comes last.
    code, rank = min(ends, key=lambda end: (end[0] == -signal.SIGTERM, end))
    if code < 0:
        name = signal.Signals(-code).name
        return SetupError(
            f"training in {n} processes: rank {rank} was killed by signal {-code} ({name}), "
            "probably because memory ran out. Pass fewer --processes or a smaller --batch-size."
        )
    return JobError(
        f"training in {n} processes: rank {rank} ended with exit code {code}. "
        "Rerun with --debug for its output."
    )

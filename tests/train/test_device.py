"""--device: which device a training takes, and the error if it is not there. Needs no Spark."""

import re

import pytest
import torch

from pipelines.errors import SetupError
from pipelines.train.device import described, training_device
from pipelines.train.environment import environment
from pipelines.train.settings import TrainSettings

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let torch see a GPU, or none for the reason that the parameter gives."""

    def start() -> None:
        if isinstance(request.param, Exception):
            raise request.param

    accelerator = None if isinstance(request.param, Exception) else CUDA
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: accelerator)
    monkeypatch.setattr(torch.cuda, "current_device", start)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")


TOO_OLD = RuntimeError(
    "The NVIDIA driver on your system is too old (found version 12020). Update your GPU driver."
)
NO_CUDA = AssertionError("Torch not compiled with CUDA enabled")
HIDDEN = RuntimeError("No CUDA GPUs are available")


@pytest.mark.parametrize("gpus", ["a GPU"], indirect=True)
@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("choice", "device", "line"),
    [("auto", CUDA, "cuda (Tesla T4)"), ("cuda", CUDA, "cuda (Tesla T4)"), ("cpu", CPU, "cpu")],
)
def test_a_gpu_is_taken_unless_the_cpu_is_asked_for(
    choice: str, device: torch.device, line: str
) -> None:
    assert training_device(choice) == device
    assert described(choice) == line


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (TOO_OLD, r"The NVIDIA driver on your system is too old \(found version 12020\)"),
        (NO_CUDA, "Torch not compiled with CUDA enabled"),
        (HIDDEN, "No CUDA GPUs are available"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_without_a_gpu_the_reason_is_said_and_cuda_stops_before_anything_is_computed(
    reason: str,
) -> None:
    says = rf"torch {re.escape(torch.__version__)} says: {reason}"
    with pytest.raises(SetupError, match=rf"^--device cuda: no GPU: {says}\. Train on ") as caught:
        environment(TrainSettings(device="cuda"))
    assert caught.value.exit_code == 5
    assert training_device("cpu") == training_device("auto") == CPU
    assert described("cpu") == "cpu"
    assert re.fullmatch(f"cpu, as there is no GPU: {says}", described("auto"))

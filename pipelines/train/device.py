"""The device that a training runs on: the one that --device names, or an error."""

import torch

from pipelines.errors import SetupError
from pipelines.model.classifier import best_device


def training_device(choice: str) -> torch.device:
    """Return the device for `auto`, `cuda` or `cpu`.

    Raises SetupError for `cuda` if torch cannot use a GPU of this machine.
    """
    device = torch.device("cpu") if choice == "cpu" else best_device()
    if choice == "cuda" and device.type != "cuda":
        raise SetupError(
            f"--device cuda: no GPU: {_cuda_fault()}. Train on a machine with a GPU that this "
            "torch can use, or pass --device cpu."
        )
    return device


def described(choice: str) -> str:
    """Return the device for the log: with the GPU's name, or with the reason why there is none."""
    device = training_device(choice)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu" and choice == "auto":
        return f"{device}, as there is no GPU: {_cuda_fault()}"
    return str(device)


def _cuda_fault() -> str:
    """Return why torch has no CUDA device, as torch says it: its build, or the driver."""
    try:
        torch.cuda.current_device()
    except (AssertionError, RuntimeError) as error:
        sentence, _, _ = str(error).partition(". ")
        return f"torch {torch.__version__} says: {sentence.splitlines()[0].rstrip('.')}"
    return f"torch {torch.__version__} lists no CUDA device"

"""The environment of a training: code, locked dependencies, Python, torch, processor."""

import os
import platform
from pathlib import Path

from pipelines.provenance import ROOT, git_commit, git_is_dirty, sha256_of
from pipelines.train.settings import TrainSettings

# The features by which torch chooses its kernels.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def environment(settings: TrainSettings) -> dict[str, str]:
    """Return the tags that name the cause when a reproduced run differs.

    Raises SetupError if --device names a device that is not there.
    """
    import torch  # takes seconds, and only training needs it

    from pipelines.model.classifier import faster_precision
    from pipelines.train.device import training_device

    device = training_device(settings.device)
    lock = ROOT / "requirements.lock"
    return {
        "git.commit": git_commit() or "unknown",
        "git.dirty": str(git_is_dirty()).lower(),
        "lock.sha256": sha256_of(lock) if lock.exists() else "unknown",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu.flags": " ".join(cpu_flags()),
        "torch.build": torch.__version__,
        "device": str(device),
        "precision.auto": faster_precision(device.type),
        "torch.threads": str(settings.threads or torch.get_num_threads()),
        "spark.cores": str(os.cpu_count()),
    }


def cpu_flags() -> tuple[str, ...]:
    """Return the processor's features in CPU_FLAGS; none if the system does not list them."""
    listing = Path("/proc/cpuinfo")
    if not listing.exists():
        return ()
    present = set(listing.read_text(encoding="utf-8", errors="replace").split())
    return tuple(flag for flag in CPU_FLAGS if flag in present)

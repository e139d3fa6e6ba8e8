"""What a result depends on besides data and settings: code, lock, Python, torch, processor."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")  # those that choose torch's kernels


@cache
def git_commit() -> str | None:
    """Commit of the code that runs; None where it is not a git checkout, as in an installed wheel."""
    return _git("rev-parse", "HEAD")


def git_is_dirty() -> bool | None:
    """Whether files differ from the commit, or are not in it (ignored ones aside); None outside a checkout."""
    changes = _git("status", "--porcelain")
    return None if changes is None else changes != ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(threads: int) -> dict[str, str]:
    """What to tag a run with so that a difference can be named when it is reproduced; threads: 0 = torch's choice."""
    import torch  # seconds to import, and only training needs it

    from pipelines.model.classifier import best_device, faster_precision

    lock = ROOT / "requirements.lock"
    return {
        "git.commit": git_commit() or "unknown",
        "git.dirty": str(git_is_dirty()).lower(),
        "lock.sha256": sha256_of(lock) if lock.exists() else "unknown",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu.flags": " ".join(cpu_flags()),
        "torch.build": torch.__version__,
        "device": str(best_device()),
        "precision.auto": faster_precision(best_device().type),
        "torch.threads": str(threads or torch.get_num_threads()),
        "spark.cores": str(os.cpu_count()),
    }


def cpu_flags() -> tuple[str, ...]:
    """The processor's features that matter to the arithmetic; empty where the system does not list them."""
    listing = Path("/proc/cpuinfo")
    if not listing.exists():
        return ()
    present = set(listing.read_text(encoding="utf-8", errors="replace").split())
    return tuple(flag for flag in CPU_FLAGS if flag in present)


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None

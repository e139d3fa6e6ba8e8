"""Run subprocesses, and read their children, variables and sockets from /proc."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
LISTENING = "0A"  # the kernel's code of that socket state


def own_environment() -> dict[str, str]:
    """Return the environment without the port of this JVM, so that a subprocess starts its own."""
    return {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"}


def run_to_end(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    exit_code: int = 0,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the checkout; fail with its output on another exit code."""
    process = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert process.returncode == exit_code, process.stdout + process.stderr
    return process


def descendants(pid: int) -> list[int]:
    """Return the process IDs of all children and their children, without zombies."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):  # the process has ended meanwhile
            continue
        state, parent = status.rsplit(")", 1)[1].split()[:2]
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    below: list[int] = []
    to_visit = [pid]
    while to_visit:
        direct = children.get(to_visit.pop(), [])
        below += direct
        to_visit += direct
    return below


def variable(pid: int, name: str) -> str | None:
    """Return an environment variable as the process got it at its start; None if it has none."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return dict(entry.split("=", 1) for entry in entries if "=" in entry).get(name)


def listening(pid: int) -> list[str]:
    """Return the addresses on which a process listens, in the kernel's hexadecimal notation."""
    addresses: dict[str, str] = {}  # by the socket's inode
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()
        for line in lines[1:]:
            columns = line.split()
            if columns[3] == LISTENING:
                addresses[columns[9]] = columns[1].split(":")[0]
    own_addresses: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        inode = target.removeprefix("socket:[").removesuffix("]")
        if target.startswith("socket:[") and inode in addresses:
            own_addresses.append(addresses[inode])
    return own_addresses

"""What runs below this process and where it listens, read from /proc."""

import os
from pathlib import Path

LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started; zombies are left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (
                (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:2]
            )
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if state != "Z":
            parents[int(entry.name)] = int(parent)
    found, todo = list[int](), [pid]
    while todo:
        children = [child for child, parent in parents.items() if parent == todo[-1]]
        todo[-1:] = children
        found += children
    return found


def variable(pid: int, name: str) -> str | None:
    """A variable of the environment that a process started with."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair).get(name)


def listening(pid: int) -> list[str]:
    """The addresses, in the kernel's hexadecimal, at which a process waits for connections."""
    addresses = {
        columns[9]: columns[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for columns in map(
            str.split, Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]
        )
        if columns[3] == "0A"
    }
    found = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        found += [
            addresses[inode]
            for inode in [target[8:-1]]
            if target.startswith("socket:[") and inode in addresses
        ]
    return found

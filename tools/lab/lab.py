# SPDX-License-Identifier: Apache-2.0
"""Everything that one test (or demo, or measurement) makes on a machine, and its removal.

A Lab has a token; its namespaces are named after it and its directory is /run/hgt-TOKEN,
whose lock file the owner holds for its lifetime. So several runs live side by side, and what
a killed run left is told from what a living one uses by whether the lock can be taken.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.lab.namespaces import NETNS_DIRECTORY, Namespace
from tools.lab.processes import PATIENCE, Process, run

RUN = Path("/run")
PREFIX = "hgt-"


class LeftoverError(Exception):
    """Something was left that its maker should have removed (the Lab has removed it)."""


class Lab:
    """A context manager: namespaces, directories and processes that go away with it."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex[:10]
        self.namespaces: list[Namespace] = []
        self.processes: list[Process] = []
        # Locked before it has its name, so that no sweep takes it for abandoned.
        hidden = RUN / f".{PREFIX}{self.token}"
        hidden.mkdir(mode=0o700)
        self._lock = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.directory = hidden.rename(RUN / f"{PREFIX}{self.token}")

    def namespace(self, label: str) -> Namespace:
        """A new network namespace with an unguessable name that ends in `label`."""
        made = Namespace(f"{PREFIX}{self.token}-{len(self.namespaces)}-{label}")
        self.namespaces.append(made)
        return made

    def path(self, label: str) -> Path:
        """A path of ours, short because Unix socket names end at 108 bytes; nothing is made."""
        return self.directory / label

    def start(
        self,
        namespace: Namespace,
        *argv: str | Path,
        out: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Process:
        """Start a command in a namespace; its standard error is collected in a log of its own."""
        log = self.directory / f"log{len(self.processes)}"
        process = Process([*namespace.prefix(), *argv], log=log, out=out, env=env)
        self.processes.append(process)
        return process

    def close(self, patience: float = PATIENCE) -> None:
        """Remove everything.

        Raises LeftoverError if a process outlived its parent's orderly end by so many seconds.
        """
        for process in reversed(self.processes):
            process.stop()
        # Children of a killed parent end by a signal of the kernel, a moment later.
        deadline = time.monotonic() + patience
        while (orphans := self._pids()) and time.monotonic() < deadline:
            time.sleep(0.02)
        names = [f"{pid} ({_command(pid)})" for pid in orphans]
        remove(self.token)
        os.close(self._lock)
        if names:
            raise LeftoverError(f"these processes outlived their parents: {', '.join(names)}")

    def _pids(self) -> list[int]:
        return [pid for namespace in self.namespaces for pid in namespace.pids()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return "ended meanwhile"


def mounts_below(directory: Path) -> list[str]:
    """Mount points below a directory, innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{directory}/")]


def _names(token: str) -> list[str]:
    start = f"{PREFIX}{token}-"
    with contextlib.suppress(FileNotFoundError):
        return [path.name for path in NETNS_DIRECTORY.iterdir() if path.name.startswith(start)]
    return []


def remove(token: str) -> None:
    """Remove by force whatever belongs to a token: processes, mounts, namespaces, directory."""
    for name in _names(token):
        for word in run(["ip", "netns", "pids", name], check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), signal.SIGKILL)
    directory = RUN / f"{PREFIX}{token}"
    for point in mounts_below(directory):
        run(["umount", "--lazy", point])
    for name in _names(token):
        run(["ip", "netns", "delete", name])
    shutil.rmtree(directory, ignore_errors=True)


def leftovers(token: str) -> list[str]:
    """What still exists of a token, in words; empty after a close that worked."""
    directory = RUN / f"{PREFIX}{token}"
    found = [f"namespace {name}" for name in _names(token)]
    found += [f"mount {point}" for point in mounts_below(directory)]
    if directory.exists():
        found.append(f"directory {directory}")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(directory) in (words := _command(int(entry.name))):
            found.append(f"process {entry.name} ({words})")
    return found


def sweep() -> None:
    """Remove what earlier runs left that were killed; what a living run uses stays."""
    for directory in RUN.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(directory.name.removeprefix(PREFIX))
            finally:
                os.close(lock)

# SPDX-License-Identifier: Apache-2.0
"""The run directory and its lock: one switch, or one teardown, at a time.

The lock is a flock on RUNDIR/lock. Children inherit it, so it is free only when the last
process of a killed supervisor is gone as well.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from heliograph.errors import AlreadyRunningError, EnvironmentFaultError

MODE = 0o750
# Children of a supervisor that was killed need a moment to go (PR_SET_PDEATHSIG).
ORPHAN_PATIENCE = 10.0


class Made:
    """What this start has made on the file system, to be taken back if it fails."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def directory(self, path: Path, mode: int) -> None:
        """Make `path` and its missing parents; `mode` is for the last one, whatever the umask."""
        try:
            missing = [p for p in (path, *path.parents) if not p.exists()]
            for new in reversed(missing):
                new.mkdir()
                self._paths.append(new)
            if missing:
                path.chmod(mode)
        except OSError as error:
            raise EnvironmentFaultError(
                f"cannot make the directory {path}: {error.strerror}"
            ) from error
        if not path.is_dir():
            raise EnvironmentFaultError(f"{path} is not a directory")

    def file(self, path: Path) -> None:
        self._paths.append(path)

    def take_back(self) -> None:
        """Remove it again, last first; a directory that others use by now stays."""
        for path in reversed(self._paths):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        self._paths.clear()


def lock(rundir: Path, made: Made) -> int:
    """Take RUNDIR/lock, write our pid into it; the descriptor that holds it.

    AlreadyRunningError names the pid of whoever has it.
    """
    path = rundir / "lock"
    deadline = time.monotonic() + ORPHAN_PATIENCE
    while True:
        new = not path.exists()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise EnvironmentFaultError(f"cannot open {path}: {error.strerror}") from error
        if _locked(descriptor) and _is_still(descriptor, path):
            if new:
                made.file(path)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if _alive(holder) or time.monotonic() > deadline:
            raise AlreadyRunningError(
                f"the run directory {rundir} is held by process {holder or 'unknown'}: "
                "stop that one, or give this one another --rundir"
            )
        time.sleep(0.05)


@contextlib.contextmanager
def unheld(rundir: Path) -> Iterator[None]:
    """Keep everyone else out of `rundir` meanwhile. A missing one is nobody's, and not made."""
    if not rundir.exists():
        yield
        return
    made = Made()
    descriptor = lock(rundir, made)
    try:
        yield
    finally:
        made.take_back()
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file we locked is the one others will find (not one just unlinked)."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _alive(pid: str) -> bool:
    return pid.isdecimal() and Path(f"/proc/{pid}").exists()

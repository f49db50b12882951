# SPDX-License-Identifier: Apache-2.0
"""A bpffs of our own, under the run directory.

Not /sys/fs/bpf: ``ip netns exec`` remounts /sys, which hides it (kernel facts, "Lifetime").
"""

import ctypes
import fcntl
import os
import shutil
from pathlib import Path

from heliograph.errors import AlreadyRunningError, EnvironmentFaultError

_UMOUNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def is_mounted(path: Path) -> bool:
    """Whether a bpffs is mounted exactly there, in our mount namespace."""
    wanted = str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("bpf ") and left.split()[4] == wanted:
            return True
    return False


def mount(path: Path) -> bool:
    """Mount a bpffs there unless there is one; returns whether that was needed.

    The directory above must be there. Raises EnvironmentFaultError if refused, and leaves nothing.
    """
    if is_mounted(path):
        return False
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise EnvironmentFaultError(
            f"cannot make the directory {path}: {error.strerror}"
        ) from error
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"):
        reason = os.strerror(ctypes.get_errno())
        path.rmdir()
        raise EnvironmentFaultError(
            f"a bpffs cannot be mounted at {path} ({reason}): run as root or with CAP_SYS_ADMIN, "
            "or have one mounted there"
        )
    return True


def hold(path: Path) -> int:
    """Be the only process that works on what is pinned below `path`, for as long as the returned
    descriptor is open. Raises AlreadyRunningError if there is one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"another switch works on the data plane below {path}: stop it first"
        ) from error
    return descriptor


def unmount(path: Path) -> bool:
    """Take the bpffs away, with every pin in it; returns whether there was one."""
    if not is_mounted(path):
        return False
    # What is pinned ends only when its name goes: the file system may be mounted elsewhere too.
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif not entry.name.endswith(".debug"):  # the kernel's own, and not removable
            entry.unlink()
    _libc.umount2(os.fsencode(path), _UMOUNT_DETACH)
    path.rmdir()
    return True

# SPDX-License-Identifier: Apache-2.0
"""What the switch needs of the machine, checked before anything is made.

Each function raises EnvironmentFaultError with one line that says what is missing and how to
mend it. The facts come as arguments with the machine's own as defaults.
"""

import contextlib
import ctypes
import os
import re
from pathlib import Path

from heliograph.errors import EnvironmentFaultError

LIBBPF = "libbpf.so.1"
OLDEST_KERNEL = (6, 6)  # tcx links
# include/uapi/linux/capability.h
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}


def check(rundir: Path, ephemeral: bool) -> None:
    """Everything `helio run` needs; the first thing that is missing is the one that is said."""
    check_capabilities(mounts=not os.path.ismount(rundir / "bpf"))
    check_kernel()
    check_libbpf()
    if not ephemeral:
        check_mount_namespace()


def check_capabilities(mounts: bool, status: str | None = None) -> None:
    """`status` is the text of /proc/PID/status. Mounting a bpffs takes CAP_SYS_ADMIN as well."""
    text = Path("/proc/self/status").read_text() if status is None else status
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", text, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    needed = ["CAP_BPF", "CAP_NET_ADMIN"] + (["CAP_SYS_ADMIN"] if mounts else [])
    missing = [name for name in needed if not effective >> CAPABILITIES[name] & 1]
    if missing:
        raise EnvironmentFaultError(
            f"missing {', '.join(missing)}: run as root, or with these capabilities"
        )


def check_kernel(release: str | None = None) -> None:
    """`release` is what uname -r prints."""
    text = os.uname().release if release is None else release
    found = re.match(r"(\d+)\.(\d+)", text)
    if not found or (int(found[1]), int(found[2])) < OLDEST_KERNEL:
        raise EnvironmentFaultError(
            f"kernel {text} is too old: Linux {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} or later "
            "is needed (tcx)"
        )


def check_libbpf(name: str = LIBBPF) -> None:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise EnvironmentFaultError(
            f"the library {name} cannot be loaded ({error}): install libbpf 1.x (Debian: libbpf1)"
        ) from error


def check_mount_namespace(proc: Path = Path("/proc"), named: Path = Path("/run/netns")) -> None:
    """Refuse a mount namespace that is not the machine's own.

    `ip netns exec` makes one that ends with its command, and our bpffs, every pin and so all
    traffic with it (kernel facts, "Lifetime"). The machine's own is that of process 1, or where
    that one cannot be asked, of the oldest ancestor that can. Where that is ours, as in a
    container, there is nothing to hold against it.
    """
    ours = (proc / "self/ns/mnt").readlink()
    if _outermost_mounts(proc, ours) != ours:
        name = _network_namespace(proc, named) or "NAME"
        raise EnvironmentFaultError(
            "this mount namespace is private (made by `ip netns exec`?): the switch would not "
            f"outlive it; use `nsenter --net={named}/{name} helio run`, or --ephemeral"
        )


def _outermost_mounts(proc: Path, ours: Path) -> Path:
    """The mount namespace of the oldest ancestor that may be asked; `ours` if none may."""
    found, process = ours, "self"
    while process != "0":
        with contextlib.suppress(OSError):
            found = (proc / process / "ns/mnt").readlink()
        try:
            # proc(5): "PID (NAME) STATE PPID", and NAME may hold anything.
            process = (proc / process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            break
    return found


def _network_namespace(proc: Path, named: Path) -> str | None:
    """The name ip-netns(8) knows our network namespace by."""
    try:
        ours = (proc / "self/ns/net").stat()
        return next((p.name for p in named.iterdir() if os.path.samestat(p.stat(), ours)), None)
    except OSError:
        return None

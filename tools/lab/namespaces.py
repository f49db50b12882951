# SPDX-License-Identifier: Apache-2.0
"""A network namespace, and what one does in it."""

import contextlib
import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeVar

from tools.lab.processes import PATIENCE, eventually, run

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
NETNS_DIRECTORY = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(path: Path) -> None:
    """Move the calling thread; os.setns comes only with Python 3.12."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Keep the calling thread on one processor: each has a queue of its own for frames, and what
    waits in one may be overtaken by what is sent from another."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _send(sender: socket.socket, frame: bytes) -> None:
    """Send a frame, once more if a processor's queue is full, which all namespaces share: then it
    has not left."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            sender.send(frame)
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS or time.monotonic() > deadline:
                raise
        time.sleep(0.001)


class Namespace:
    """A named network namespace; the caller (a Lab) ends what runs in it and deletes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS_DIRECTORY / name
        run(["ip", "netns", "add", name])
        self.ip("link set lo up")

    def delete(self) -> None:
        run(["ip", "netns", "delete", self.name])

    def prefix(self) -> list[str]:
        """Words that make a command run here.

        Not `ip netns exec`: that gives the command a private mount namespace, and a bpffs
        mounted in it dies with the command.
        """
        return ["nsenter", f"--net={self.path}"]

    def run(
        self, *argv: str | Path, check: bool = True, timeout: float = PATIENCE
    ) -> CompletedProcess[str]:
        """Run a command here to its end; see `processes.run`."""
        return run([*self.prefix(), *argv], check=check, timeout=timeout)

    def ip(self, words: str) -> str:
        """`ip WORDS` here, split at blanks; returns what it printed."""
        return run(["ip", "-n", self.name, *words.split()]).stdout

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in a thread that has entered this namespace; sockets it makes stay."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                _enter(self.path)
                results.append(function())
            except BaseException as error:  # it is raised again in the calling thread
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def packet_socket(self, device: str, protocol: int) -> socket.socket:
        """An AF_PACKET socket bound to a device here; protocol 0 receives nothing."""

        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            made.bind((device, protocol))
            return made

        return self.call(make)

    def send(self, device: str, frames: Sequence[bytes]) -> None:
        """Send raw Ethernet frames (tags in the data) out of a device of this namespace."""
        with self.packet_socket(device, 0) as sender, one_processor():
            for frame in frames:
                _send(sender, frame)

    def address_up(self, device: str, address: str) -> None:
        """Give a device an address ("10.0.0.1/24") and set it up."""
        self.ip(f"address add {address} dev {device}")
        self.ip(f"link set {device} up")

    def going(self) -> None:
        """Wait until every device here that has a carrier sends.

        Who sets up one end of a pair does not wait for the other: the kernel sets that going in its
        own time, and what it is to send before is lost.
        """

        def stuck() -> list[str]:
            lines = self.ip("-o link show up").splitlines()
            return [line for line in lines if "LOWER_UP" in line and " qdisc noop " in line]

        assert eventually(lambda: not stuck(), interval=0.002), stuck()

    def mac(self, device: str) -> bytes:
        """The six bytes of a device's MAC address."""
        words = self.ip(f"-o link show dev {device}").split()
        return bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))

    def ping(self, target: str, count: int = 3, *, interval: float = 0.05) -> int:
        """Send `count` echo requests, return how many were answered.

        For one alone, which is what is sent again and again or is to stay without an answer, it
        waits a second.
        """
        wait = "1" if count == 1 else "20"
        result = self.run(
            *("ping", "-n", "-q", "-W", wait, "-c", str(count), "-i", str(interval), target),
            check=False,
        )
        words = result.stdout.replace(",", " ").split()
        return int(words[words.index("received") - 1]) if "received" in words else 0

    def set_sysctl(self, key: str, value: str) -> None:
        """Write /proc/sys/net/KEY (slashes) as seen from this namespace."""
        self.call(lambda: Path("/proc/sys/net", key).write_text(value))

    def pids(self) -> list[int]:
        """Processes that live here now; none if the namespace is gone."""
        if not self.path.exists():
            return []
        inode = self.path.stat().st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    same = (entry / "ns/net").stat().st_ino == inode
                except OSError:  # it ended meanwhile, or is a zombie
                    continue
                if same:
                    found.append(int(entry.name))
        return found


def veth(near: tuple[Namespace, str], far: tuple[Namespace, str]) -> None:
    """A veth pair with each end in a namespace, both up and going."""
    peer = ["peer", "name", far[1], "netns", far[0].name]
    run(["ip", "link", "add", near[1], "netns", near[0].name, "type", "veth", *peer])
    for namespace, device in (near, far):
        namespace.ip(f"link set {device} up")
    near[0].going()

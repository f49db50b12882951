# SPDX-License-Identifier: Apache-2.0
"""Numbered frames to many destinations in turn, faster than a test can watch them, and from a
process of its own, so that what the test does meanwhile does not stop them."""

import errno
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tools.lab.capture import Capture, Frame
from tools.lab.namespaces import Namespace

TO = b"\x02\0\0\0\x01"  # destinations are numbered by their last byte
HEAD = b"\x02\0\0\0\0\x01\x88\xb6"
KINDS = 100
RATE = 4000  # frames a second
MOST = 100_000  # which the captures of a test hold
_SLICE = 0.002


def destination(kind: int) -> str:
    return (TO + bytes([kind])).hex(":")


class Storm:
    """From a device, from when this is entered until it is left; `sent` frames."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        self._words = [*namespace.prefix(), sys.executable, "-m", __name__, device]
        self.sent = 0

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._words, stdin=pipe, stdout=pipe)
        assert self._process.stdout and self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        printed, _ = self._process.communicate()  # closes its standard input, which ends it
        self.sent = int(printed)

    @staticmethod
    def numbers(frames: Iterable[Frame]) -> list[int]:
        return [int.from_bytes(frame.data[-4:]) for frame in frames]

    def arrived(self, capture: Capture) -> list[int]:
        """After its end: of all that were sent, once they are there."""
        return self.numbers(capture.collect(self.sent))


def main(device: str) -> None:
    """Send until standard input is closed, then print how many frames were sent."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # else one overtakes another
    number = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((device, 0))
        print("ready", flush=True)
        begun = time.monotonic()
        while number < MOST and not select.select([sys.stdin], [], [], _SLICE)[0]:
            # Who was held up does not make up for it: queues are short.
            for _ in range(min(int((time.monotonic() - begun) * RATE), RATE // 100)):
                data = TO + bytes([number % KINDS]) + HEAD + bytes(42) + number.to_bytes(4, "big")
                try:
                    sender.send(data)
                    number += 1
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # a full queue, which took nothing
                        raise
            begun = time.monotonic()
    print(number)


if __name__ == "__main__":
    main(*sys.argv[1:])

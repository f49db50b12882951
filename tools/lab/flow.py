# SPDX-License-Identifier: Apache-2.0
"""A steady flow of numbered frames, to see which of them arrived where."""

import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tools.lab.capture import Frame
from tools.lab.namespaces import Namespace

NUMBER = struct.Struct("!I")
ETHERTYPE = b"\x88\xb6"  # the second one for experiments
PAYLOAD = bytes(42)


class Flow:
    """Frames from a device of one guest to the MAC address of another, as a context manager."""

    def __init__(self, source: tuple[Namespace, str], target: bytes, rate: int = 1000) -> None:
        """`target` is the destination's MAC address, `rate` in frames per second."""
        namespace, device = source
        self._head = target + namespace.mac(device) + ETHERTYPE
        self._socket = namespace.packet_socket(device, 0)
        self._interval = 1 / rate
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def _send(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            self._socket.send(self._head + NUMBER.pack(self.sent) + PAYLOAD)
            self.sent += 1
            due += self._interval
            time.sleep(max(0.0, due - time.monotonic()))

    def numbers(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of those frames that are of this flow, as they arrived."""
        at = len(self._head)
        return [
            NUMBER.unpack_from(frame.data, at)[0]
            for frame in frames
            if frame.data.startswith(self._head)
        ]

    def stop(self) -> None:
        """Send no more."""
        self._end.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._socket.close()

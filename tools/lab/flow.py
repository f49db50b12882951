# SPDX-License-Identifier: Apache-2.0
"""A steady flow of numbered frames, to see which of them arrived where; and a TCP stream."""

import errno
import socket
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tools.lab.capture import Capture, Frame
from tools.lab.namespaces import Namespace, one_processor
from tools.lab.processes import PATIENCE

NUMBER = struct.Struct("!I")
ETHERTYPE = b"\x88\xb6"  # the second one for experiments
PAYLOAD = bytes(42)
LAG = 0.1


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
        with one_processor():
            self._send_all()

    def _send_all(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            try:
                self._socket.send(self._head + NUMBER.pack(self.sent) + PAYLOAD)
                self.sent += 1
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # a full queue, which took nothing
                    raise
            # Who was held up makes up for a part of it only: queues are short.
            due = max(due + self._interval, time.monotonic() - LAG)
            time.sleep(max(0.0, due - time.monotonic()))

    def numbers(self, frames: Sequence[Frame]) -> list[int]:
        """The numbers of those frames that are of this flow, as they arrived."""
        at = len(self._head)
        return [
            NUMBER.unpack_from(frame.data, at)[0]
            for frame in frames
            if frame.data.startswith(self._head)
        ]

    def arrived(self, capture: Capture) -> list[int]:
        """After stop: the numbers of its frames that a capture has, which waits for all."""
        frames = capture.collect(self.sent, keep=lambda frame: frame.data.startswith(self._head))
        return self.numbers(frames)

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


def transfer(source: Namespace, sink: Namespace, address: str, size: int) -> None:
    """Send `size` bytes over TCP to an address of `sink`; raises TimeoutError if it gets stuck."""
    server = sink.call(lambda: socket.create_server((address, 5001)))
    client = source.call(lambda: socket.create_connection((address, 5001), PATIENCE))
    with server, client, server.accept()[0] as receiver:
        receiver.settimeout(PATIENCE)
        sent = received = 0
        while received < size:
            if sent - received < 1 << 17 and sent < size:
                sent += client.send(bytes(min(1 << 16, size - sent)))
            received += len(receiver.recv(1 << 20))

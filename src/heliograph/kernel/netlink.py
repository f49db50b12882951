# SPDX-License-Identifier: Apache-2.0
"""Route netlink (RFC 3549): requests with their answers, and events.

The kernel carries out a route-netlink request inside send(), so that the answer is already
queued when send() returns: waiting for it is no waiting, and requests need no asyncio. Events
come on a socket of their own, so that an overflow of theirs never costs an answer.

Own code because of what the obvious library costs here (Python 3.11, 1,001 devices): importing
pyroute2 adds 13.3 MiB to a process, this 0.6; a dump takes it 129 ms, this 12.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple, Self

MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
ATTRIBUTE: Final = struct.Struct("=HH")  # length with this header, type

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

SOL_NETLINK: Final = 270
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NLMSGERR_ATTR_MSG: Final = 1
SO_RCVBUFFORCE: Final = 33
MSG_TRUNC: Final = int(socket.MSG_TRUNC)  # the enumeration's own & costs as much as a system call

ATTRIBUTE_TYPE_MASK: Final = 0x3FFF  # without the flags "nested" and "network byte order"

# The kernel makes no message larger than 32 KiB, whatever it is offered.
RECEIVE_SIZE: Final = 1 << 16
# Holds about 3,600 events: the kernel doubles it, and counts 2.3 KB for each.
EVENT_BUFFER: Final = 4 << 20
ANSWER_TIMEOUT: Final = 10.0


class NetlinkError(OSError):
    """The kernel's refusal: `errno`, and in `strerror` its own explanation if it gave one."""


class EventsLostError(Exception):
    """More events came than the socket could hold; what is known is stale."""


class Answer(NamedTuple):
    """The bodies (without message header) of an answer; `whole` is false when the kernel says
    that what it listed changed meanwhile, so that entries may be missing."""

    bodies: list[bytes]
    whole: bool


def attribute(kind: int, *parts: bytes) -> bytes:
    """One attribute, padded; several parts make a nested one when they are attributes."""
    data = b"".join(parts)
    return ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(kind: int, value: str) -> bytes:
    """A string attribute with its terminating zero."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host byte order."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Type to content of the attributes from `offset` to the end; what is cut short is left."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & ATTRIBUTE_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each whole message in one datagram."""
    offset = 0
    while offset + MESSAGE.size <= len(data):
        length, kind, flags, sequence, _ = MESSAGE.unpack_from(data, offset)
        if length < MESSAGE.size or offset + length > len(data):
            return
        yield kind, flags, sequence, data[offset + MESSAGE.size : offset + length]
        offset += (length + 3) & ~3


def refusal(flags: int, body: bytes) -> NetlinkError | None:
    """What an NLMSG_ERROR says; None for a mere acknowledgement."""
    (number,) = struct.unpack_from("=i", body)
    if number == 0:
        return None
    words = os.strerror(-number)
    if flags & NLM_F_ACK_TLVS:
        # NETLINK_CAP_ACK: only the header of our request stands between number and words.
        said = attributes(body, 4 + MESSAGE.size).get(NLMSGERR_ATTR_MSG)
        if said:
            words = said.rstrip(b"\0").decode(errors="replace")
    return NetlinkError(-number, words)


def _socket(groups: int) -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    try:
        made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        made.bind((0, groups))
    except OSError:
        made.close()
        raise
    return made


def _receive(source: socket.socket) -> bytes | None:
    """One datagram; None for one that did not come from the kernel (any process may send)."""
    data, _, flags, sender = source.recvmsg(RECEIVE_SIZE)
    if flags & MSG_TRUNC:
        raise NetlinkError(errno.EMSGSIZE, f"netlink message longer than {RECEIVE_SIZE} bytes")
    return data if sender[0] == 0 else None


class RequestSocket:
    """Requests to the network namespace of the thread that made this; one at a time."""

    def __init__(self) -> None:
        self._socket = _socket(groups=0)
        self._socket.settimeout(ANSWER_TIMEOUT)
        self._sequence = 0

    def execute(self, kind: int, body: bytes, flags: int = 0) -> Answer:
        """Send one request and return the whole answer (no bodies for a mere acknowledgement).

        Raises NetlinkError when the kernel refuses.
        """
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        flags |= NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(MESSAGE.pack(16 + len(body), kind, flags, sequence, 0) + body)
        bodies: list[bytes] = []
        whole = True
        while True:
            for kind_, flags_, sequence_, body_ in messages(_receive(self._socket) or b""):
                if sequence_ != sequence:
                    continue  # left over from a request whose answer was given up
                if flags_ & NLM_F_DUMP_INTR:
                    whole = False
                if kind_ in (NLMSG_ERROR, NLMSG_DONE):
                    error = refusal(flags_, body_)
                    if error:
                        raise error
                    return Answer(bodies, whole)
                bodies.append(body_)

    def fileno(self) -> int:
        """For device ioctls, which any socket of the namespace serves."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventSocket:
    """Events of the given groups (a bit mask, RTMGRP_*); `fileno` becomes readable."""

    def __init__(self, groups: int) -> None:
        self._socket = _socket(groups)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, EVENT_BUFFER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> list[tuple[int, bytes]] | None:
        """(type, body) of the events in the next datagram; None when none is waiting.

        Raises EventsLostError when there were more than could be held.
        """
        try:
            data = _receive(self._socket)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EMSGSIZE):
                raise
            raise EventsLostError(error.strerror) from error
        return [(kind, body) for kind, _, _, body in messages(data or b"")]

    def discard(self) -> None:
        """Throw away what waits, and the note that more was lost."""
        while True:
            with suppress(EventsLostError):
                if self.receive() is None:
                    return

    def close(self) -> None:
        self._socket.close()

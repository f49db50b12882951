# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes; the kernel itself answers in tests/system/test_devices.py."""

import errno
import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliograph.kernel import netlink

# Types as the kernel numbers them: 14 bits, the two upper ones are flags.
ATTRIBUTES = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8)


def message(kind: int, body: bytes, flags: int = 0, sequence: int = 1) -> bytes:
    header = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0)
    return header + body + bytes(-len(body) % 4)


def test_attribute_on_the_wire() -> None:
    assert netlink.text(3, "tap1") == b"\x09\x00\x03\x00tap1\x00\x00\x00\x00"
    assert netlink.u32(4, 1500) == struct.pack("=HHI", 8, 4, 1500)
    inner = netlink.u32(4, 1)
    assert netlink.attribute(18, inner, inner) == struct.pack("=HH", 20, 18) + inner * 2


@given(ATTRIBUTES)
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    wire = b"".join(netlink.attribute(kind, data) for kind, data in wanted.items())
    assert netlink.attributes(b"head" + wire, 4) == wanted


def test_flags_in_an_attribute_type_are_no_part_of_it() -> None:
    assert netlink.attributes(netlink.attribute(0x8000 | 26, b"nest")) == {26: b"nest"}


@given(st.binary(max_size=80))
def test_nonsense_is_left_without_harm(data: bytes) -> None:
    for content in netlink.attributes(data).values():
        assert content in data
    for _, _, _, body in netlink.messages(data):
        assert body in data


@given(ATTRIBUTES, st.integers(1, 40))
def test_what_is_cut_short_is_left(wanted: dict[int, bytes], cut: int) -> None:
    wire = b"".join(netlink.attribute(kind, data) for kind, data in wanted.items())
    found = netlink.attributes(wire[:-cut])
    assert found.items() <= wanted.items()


def test_messages_of_one_datagram() -> None:
    datagram = message(16, b"one", 2, 7) + message(3, b"\0\0\0\0", 0x10, 7) + b"\x20\0\0\0short"
    assert list(netlink.messages(datagram)) == [(16, 2, 7, b"one"), (3, 0x10, 7, b"\0\0\0\0")]


def test_acknowledgement_and_refusals() -> None:
    request_header = bytes(16)
    assert netlink.refusal(0, struct.pack("=i", 0) + request_header) is None

    plain = netlink.refusal(0, struct.pack("=i", -errno.EBUSY) + request_header)
    assert plain is not None
    assert (plain.errno, plain.strerror) == (errno.EBUSY, "Device or resource busy")

    explained = netlink.refusal(
        netlink.NLM_F_ACK_TLVS,
        struct.pack("=i", -errno.EINVAL) + request_header + netlink.text(1, "mtu too small"),
    )
    assert explained is not None
    assert (explained.errno, explained.strerror) == (errno.EINVAL, "mtu too small")


class Wire:
    """A socket whose peer is this test: `waiting` holds (datagram, sender's port id, flags)."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, int, int]] = deque()
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recvmsg(self, size: int) -> tuple[bytes, list[None], int, tuple[int, int]]:
        if not self.waiting:
            raise BlockingIOError
        data, sender, flags = self.waiting.popleft()
        return data, [], flags, (sender, 0)

    def settimeout(self, seconds: float) -> None:
        pass

    def setblocking(self, blocking: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: int) -> None:
        pass


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    monkeypatch.setattr(netlink, "_socket", lambda groups: made)
    return made


ACKNOWLEDGED = message(netlink.NLMSG_ERROR, bytes(20), sequence=1)


def test_answer_is_gathered_until_its_end(wire: Wire) -> None:
    wire.waiting.extend(
        [
            (message(16, b"late", sequence=0) + message(2, bytes(20), sequence=0), 0, 0),
            (message(16, b"evil"), 4711, 0),
            (message(16, b"one!") + message(16, b"two!", netlink.NLM_F_DUMP_INTR), 0, 0),
            (message(netlink.NLMSG_DONE, bytes(4)), 0, 0),
        ]
    )
    answer = netlink.RequestSocket().execute(18, b"body", netlink.NLM_F_DUMP)
    assert answer == ([b"one!", b"two!"], False)
    assert wire.sent == [struct.pack("=IHHII", 20, 18, 0x305, 1, 0) + b"body"]


def test_whole_answer_and_the_next_request_has_another_number(wire: Wire) -> None:
    wire.waiting.append((ACKNOWLEDGED, 0, 0))
    requests = netlink.RequestSocket()
    assert requests.execute(19, b"") == ([], True)
    wire.waiting.append((message(netlink.NLMSG_ERROR, struct.pack("=i16x", -19), 0, 2), 0, 0))
    with pytest.raises(netlink.NetlinkError, match="No such device"):
        requests.execute(19, b"")
    assert [struct.unpack_from("=8xI", request)[0] for request in wire.sent] == [1, 2]


def test_events_of_the_kernel_only(wire: Wire) -> None:
    events = netlink.EventSocket(1)
    wire.waiting.extend([(message(17, b"evil"), 4711, 0), (message(16, b"good"), 0, 0)])
    assert events.receive() == []
    assert events.receive() == [(16, b"good")]
    assert events.receive() is None


def test_datagram_cut_short_counts_as_loss(wire: Wire) -> None:
    wire.waiting.append((message(16, b"half"), 0, 0x20))  # MSG_TRUNC
    wire.waiting.append((message(16, b"next"), 0, 0))
    events = netlink.EventSocket(1)
    with pytest.raises(netlink.EventsLostError):
        events.receive()
    events.discard()
    assert not wire.waiting

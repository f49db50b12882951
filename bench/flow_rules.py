# SPDX-License-Identifier: Apache-2.0
"""Flow tables to measure, as ovs-ofctl takes them, and the frames that meet them.

What the first guest sends comes in by port 1 and goes out by port 2. All else, of lowest priority,
is forwarded as if there were no tables.
"""

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random

from bench.rigs import Guest
from bench.traffic import udp_frame

Lines = list[str]
DEPTH = 10  # tables
BUDGET = 4096  # masks and actions that a frame may take
CROWD = 256  # masks in one table, the most there may be
_SENDER = int(IPv4Address("10.8.0.1"))
_FIRST = int(IPv4Address("10.64.0.0"))  # of many destinations
_OTHERS = int(IPv4Address("172.16.0.0"))  # sources of frames that nobody sends
# What the guests say to each other when measured: a TCP stream, and frames nobody answers.
_TARGETS = int(IPv4Address("10.8.0.2")), int(IPv4Address("10.8.0.99"))
OTHERWISE = "priority=0, actions=NORMAL"
FORWARD = "output:2"


@dataclass(frozen=True)
class Table:
    """So many flows under so many masks; frames meet the last mask, of lowest priority."""

    masks: int
    flows: int

    def __str__(self) -> str:
        return f"{_many(self.masks, 'mask')}, {_many(self.flows, 'flow')}"

    def lines(self, actions: str = FORWARD) -> Lines:
        # Addresses at random: nothing that all flows of a mask have in common tells that a frame
        # meets none of them.
        random = Random(self.masks)
        lines = [OTHERWISE]
        for mask in range(self.masks):
            last = mask == self.masks - 1
            targets = [*_TARGETS, *self.targets()] if last else range(self._each)
            for target in targets:
                source = _prefix(_SENDER if last else random.getrandbits(32), 32 - mask % 32)
                tos = ", nw_tos=0" if mask >= 32 else ""  # twice as many masks as prefixes
                address = IPv4Address(target if last else random.getrandbits(32))
                lines.append(
                    f"priority={1000 - mask}, in_port=1, ip, nw_src={source}{tos},"
                    f" nw_dst={address}, actions={actions}"
                )
        return lines

    @property
    def _each(self) -> int:
        """Flows of all masks but the last."""
        return self.flows // self.masks

    def targets(self) -> Sequence[int]:
        """Destinations of frames that each meet another flow."""
        count = self.flows - self._each * (self.masks - 1) - len(_TARGETS)
        return range(_FIRST, _FIRST + max(count, 0))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _prefix(address: int, bits: int) -> str:
    return f"{IPv4Address(address >> 32 - bits << 32 - bits)}/{bits}"


def only(actions: str) -> Lines:
    """One flow for all that the first guest sends."""
    return [OTHERWISE, f"priority=9, in_port=1, ip, actions={actions}"]


def deep(step: Callable[[int], str]) -> Lines:
    """Ten tables, one after the other, each with ten flows under one mask."""
    lines = [OTHERWISE]
    for table in range(DEPTH):
        actions = FORWARD if table == DEPTH - 1 else step(table + 1)
        targets = [*_TARGETS, *range(_FIRST, _FIRST + 8)]
        match = f"table={table}, priority=9, in_port=1, ip"
        lines += [f"{match}, nw_dst={IPv4Address(t)}, actions={actions}" for t in targets]
    return lines


def endless() -> Lines:
    """A frame takes its whole budget for looking up the same flow again and again."""
    return only(",".join(["resubmit(,0)"] * 32))


def crowded() -> Lines:
    """A frame takes its whole budget for masks under which it meets nothing."""
    lines = only(",".join(["resubmit(,1)"] * (BUDGET // CROWD + 1)))
    pairs = itertools.product(range(1, 33), range(1, 33))
    for source, target in itertools.islice(pairs, CROWD):
        match = f"nw_src={_prefix(_OTHERS, source)}, nw_dst={_prefix(_OTHERS, target)}"
        lines.append(f"table=1, ip, {match}, actions=drop")
    return lines


def to_install(count: int) -> Lines:
    """So many flows of one mask, as a controller may know hosts by MAC and VLAN."""
    return [
        f"priority=100, in_port=1, dl_vlan=5, dl_dst=02:64:{n >> 24:02x}:{n >> 16 & 255:02x}:"
        f"{n >> 8 & 255:02x}:{n & 255:02x}, actions=strip_vlan, output:2"
        for n in range(count)
    ]


def pairs(count: int) -> Lines:
    """So many flows, each for another source."""
    sources = range(_FIRST, _FIRST + count)
    match = "priority=9, in_port=1, ip"
    return [OTHERWISE] + [f"{match}, nw_src={IPv4Address(s)}, actions=output:2" for s in sources]


def frames_to(sender: Guest, receiver: Guest, targets: Sequence[int]) -> Iterator[bytes]:
    base = udp_frame(sender, receiver)
    return (_readdressed(base, 30, target) for target in targets)


def frames_from(sender: Guest, receiver: Guest, sources: Sequence[int]) -> Iterator[bytes]:
    """Frames that meet the flows of `pairs` with these numbers."""
    base = udp_frame(sender, receiver)
    return (_readdressed(base, 26, _FIRST + source) for source in sources)


def _readdressed(frame: bytes, place: int, address: int) -> bytes:
    """The frame with another IPv4 address there, and its header's checksum."""
    header = bytearray(frame[14:34])
    header[place - 14 : place - 10] = address.to_bytes(4, "big")
    header[10:12] = bytes(2)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (0xFFFF ^ ((total & 0xFFFF) + (total >> 16))).to_bytes(2, "big")
    return frame[:14] + bytes(header) + frame[34:]

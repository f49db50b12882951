# SPDX-License-Identifier: Apache-2.0
"""Tags and port modes, from rules 17, 18, 36 to 40, 69 to 75 alone."""

from dataclasses import dataclass, replace

from heliograph.kernel.layouts import PriorityTags, VlanMode
from heliograph.kernel.snapshot import PortEntry

TPIDS = (0x8100, 0x88A8)


@dataclass(frozen=True, slots=True)
class Tag:
    """One VLAN tag."""

    vid: int
    pcp: int = 0
    tpid: int = 0x8100

    @property
    def wire(self) -> bytes:
        return self.tpid.to_bytes(2, "big") + (self.pcp << 13 | self.vid).to_bytes(2, "big")


Tags = tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Packet:
    """A frame at one moment: its addresses, the tags the switch looks at, and all the rest.

    The rules do not know the drop-eligible bit: it stays in a frame whose tags are those it was
    `received` with, and is 0 once they are written anew.
    """

    addresses: bytes
    tags: Tags
    rest: bytes
    received: tuple[Tags, bytes] | None = None

    @property
    def wire(self) -> bytes:
        if self.received and self.tags == self.received[0]:
            return self.received[1]
        return self.addresses + b"".join(tag.wire for tag in self.tags) + self.rest


def _is_tpid(data: bytes) -> bool:
    return int.from_bytes(data[:2], "big") in TPIDS


def parse(frame: bytes, limit: int) -> Packet | None:
    """Rule 39: at most `limit` tags (0: two) are looked at, any further one is payload.

    None if one of these is cut off before the type that follows it (rule 58). A lone tag that
    says neither VLAN nor priority is none, and goes.
    """
    tags: list[Tag] = []
    rest = frame[12:]
    while len(tags) < (limit or 2) and _is_tpid(rest):
        if len(rest) < 6:
            return None
        tci = int.from_bytes(rest[2:4], "big")
        tags.append(Tag(tci & 0xFFF, tci >> 13, int.from_bytes(rest[:2], "big")))
        rest = rest[4:]
    if len(tags) == 1 and _says_nothing(tags[0]):
        return Packet(frame[:12], (), rest)
    return Packet(frame[:12], tuple(tags), rest, (tuple(tags), frame))


def _says_nothing(tag: Tag) -> bool:
    return not tag.vid and not tag.pcp


def vid(tags: Tags, place: int = 0) -> int:
    """The VID of the outer (or another) tag; no tag is VLAN 0."""
    return tags[place].vid if place < len(tags) else 0


def _trunks(port: PortEntry, vlan: int) -> bool:
    """Rules 71 and 72."""
    native = port.mode in (VlanMode.NATIVE_TAGGED, VlanMode.NATIVE_UNTAGGED)
    if native and vlan in (0, port.tag):
        return vlan == port.tag
    return not port.trunks or vlan in port.trunks


def _customer(port: PortEntry, vlan: int) -> bool:
    return not port.customer_vlans or vlan in port.customer_vlans


def admits(port: PortEntry, tags: Tags) -> bool:
    """Rules 70 to 73: may a packet with these tags be received on the port?"""
    outer = vid(tags)
    if port.mode == VlanMode.ACCESS:
        return outer == 0
    if port.mode == VlanMode.DOT1Q_TUNNEL:
        return _customer(port, outer)
    if port.mode != VlanMode.TRUNK and outer == 0:
        return True
    return _trunks(port, outer)


def inward(port: PortEntry, tags: Tags) -> Tags:
    """The tags inside the switch of a packet received on the port (rules 18, 70 to 73)."""
    if port.mode == VlanMode.TRUNK:
        return tags
    if port.mode == VlanMode.DOT1Q_TUNNEL:
        return (Tag(port.tag, tpid=port.service_tpid), *tags[:1])  # two at most (rule 39)
    if vid(tags):
        return tags  # native; an access port has not admitted it
    outer = tags[0] if tags else Tag(0)
    # An access port has one VLAN and no second one: what was parsed behind it goes.
    return (replace(outer, vid=port.tag), *(() if port.mode == VlanMode.ACCESS else tags[1:]))


def includes(port: PortEntry, tags: Tags) -> bool:
    """Rule 74: is the port one of those to which a packet with these inside tags floods?"""
    outer, inner = vid(tags), vid(tags, 1)
    if port.mode == VlanMode.ACCESS:
        return outer == port.tag and inner == 0
    if port.mode == VlanMode.DOT1Q_TUNNEL:
        return outer == port.tag and _customer(port, inner)
    return _trunks(port, outer)


def outward(port: PortEntry, tags: Tags, priority: int) -> Tags:
    """The tags with which it leaves by the port (rules 37, 40, 75).

    `priority` is the PCP of the packet before.
    """
    if port.mode == VlanMode.ACCESS:
        left: Tags = ()
    elif port.mode == VlanMode.DOT1Q_TUNNEL or (
        port.mode == VlanMode.NATIVE_UNTAGGED and vid(tags) == port.tag
    ):
        left = tags[1:]
    else:
        left = tags
    if len(left) == 1 and _says_nothing(left[0]):
        left = ()
    wanted = port.priority_tags
    if not left and (
        wanted == PriorityTags.PRIORITY_ALWAYS
        or (wanted == PriorityTags.PRIORITY_IF_NONZERO and priority)
    ):
        return (Tag(0, priority),)
    return left

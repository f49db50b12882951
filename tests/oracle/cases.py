# SPDX-License-Identifier: Apache-2.0
"""Random configurations and frames, of any source of randomness that looks like random.Random.

Values are few and near each other, so that they meet: a handful of VLANs, MACs and ports.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.oracle.model import RESERVED, Learned

from heliograph.kernel.layouts import PriorityTags, VlanMode
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry

SLOTS = (3, 5)  # of the bridges; not 0, so that a forgotten slot shows
FIRST_IFINDEX = 1000
VLANS = (0, 1, 5, 6, 7, 111, 222, 4095)
TAGS = (0, 5, 6, 7, 111)
MACS = [bytes((2, 0, 0, 0, 0, last)) for last in range(1, 6)]
OLD_MAC = bytes((2, 0, 0, 0, 0, 9))  # of entries too old; never a source, which would renew them
GROUPS = [b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")]
SNAPLENS = (0, 0, 0, 14, 15, 17, 18, 19, 33, 60, 64, 100, 1500, 65535)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the MAC table; `void`: too old, or of another generation of its port."""

    slot: int
    mac: bytes
    vlan: int
    port: int
    too_old: bool = False
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    bridges: tuple[BridgeEntry, ...]
    entries: tuple[Entry, ...]

    def learned(self) -> Learned:
        return {
            (entry.slot, entry.mac, entry.vlan): entry.port
            for entry in self.entries
            if not (entry.too_old or entry.changed)
        }

    def inputs(self) -> list[tuple[int, int]]:
        """Where a frame can come in: bridge slot and port, which is no patch port."""
        return [(b.slot, p.number) for b in self.bridges for p in b.ports if p.peer is None]


def _some(rng: Random, among: range | tuple[int, ...] | list[int], most: int) -> frozenset[int]:
    return frozenset(rng.choice(among) for _ in range(rng.randint(0, most)))


def _port(rng: Random, number: int, peer: tuple[int, int] | None, *, there: bool) -> PortEntry:
    mode = rng.choice(list(VlanMode) + [VlanMode.TRUNK] * 3 + [VlanMode.ACCESS])
    device = peer is None and (there or rng.randrange(20) > 0)
    sometimes = rng.randrange(2) == 0
    return PortEntry(
        number=number,
        ifindex=FIRST_IFINDEX + number if device else 0,
        mode=mode,
        tag=0 if mode == VlanMode.TRUNK else rng.choice(TAGS),
        trunks=_some(rng, VLANS, 4) if sometimes else frozenset(),
        generation=number,
        protected=rng.randrange(6) == 0,
        priority_tags=rng.choice([PriorityTags.PRIORITY_NEVER, *PriorityTags]),
        service_tpid=rng.choice([0x88A8, 0x88A8, 0x8100]),
        customer_vlans=_some(rng, VLANS, 3) if mode == VlanMode.DOT1Q_TUNNEL else frozenset(),
        peer=peer,
        tunnel=device and not there and rng.randrange(6) == 0,
    )


def _mirror(rng: Random, slot: int, number: int, ports: list[int]) -> MirrorEntry:
    to_vlan = rng.randrange(3) == 0
    everything = rng.randrange(3) == 0
    return MirrorEntry(
        number=number,
        slot=slot * 32 + number,
        sources=frozenset(ports) if everything else _some(rng, ports, 3),
        destinations=frozenset(ports) if everything else _some(rng, ports, 3),
        vlans=_some(rng, VLANS, 3) if rng.randrange(3) == 0 else frozenset(),
        output_port=None if to_vlan else rng.choice(ports),
        snaplen=rng.choice(SNAPLENS),
        output_vlan=rng.choice((5, 111, 222)) if to_vlan else 0,
    )


Wiring = tuple[list[list[int]], dict[int, tuple[int, int]]]
"""The numbers of the ports of each bridge, and where the patch ports among them lead."""


def _wiring(rng: Random) -> Wiring:
    numbers = rng.sample(range(1, 40), rng.randint(2, 8))
    if rng.randrange(2) or len(numbers) < 4:
        peers = {}
        if rng.randrange(10) == 0 and len(numbers) > 3:  # a patch within one bridge
            peers = {numbers[0]: (SLOTS[0], numbers[1]), numbers[1]: (SLOTS[0], numbers[0])}
        return [numbers], peers
    half = len(numbers) // 2
    near, far = numbers[:half], numbers[half:]
    peers = {}
    for one, other in list(zip(near, far, strict=False))[
        : 1 if half < 3 else rng.choice((1, 1, 2))
    ]:
        peers |= {one: (SLOTS[1], other), other: (SLOTS[0], one)}
    return [near, far], peers


def configuration(rng: Random, wiring: Wiring | None = None) -> Configuration:
    """One or two bridges with up to 8 ports and 6 mirrors in all, and a MAC table.

    Of a given `wiring` every port has its device. Others may be tunnels: until a frame is handed
    over they are ports like any other, so the model knows nothing of them.
    """
    groups, peers = wiring or _wiring(rng)
    limit = rng.choice((1, 2))
    bridges = []
    for slot, numbers in zip(SLOTS, groups, strict=False):
        chosen = sorted(rng.sample(range(32), rng.randint(0, 6 // len(groups))))
        bridges.append(
            BridgeEntry(
                slot=slot,
                forwarding=rng.randrange(12) > 0,
                forward_bpdu=rng.randrange(4) == 0,
                mac_age=300,
                mac_limit=8192,
                ports=tuple(_port(rng, n, peers.get(n), there=bool(wiring)) for n in numbers),
                mirrors=tuple(_mirror(rng, slot, number, numbers) for number in chosen),
                flood_vlans=_some(rng, VLANS, 2) if rng.randrange(3) == 0 else frozenset(),
                vlan_limit=limit,
            )
        )
    return Configuration(tuple(bridges), tuple(_entries(rng, bridges)))


def _entries(rng: Random, bridges: list[BridgeEntry]) -> Iterator[Entry]:
    seen = set()
    for bridge in bridges:
        for _ in range(rng.randint(0, 10)):
            state = rng.randrange(8)
            key = (bridge.slot, rng.choice(MACS) if state else OLD_MAC, rng.choice(VLANS))
            if key not in seen:
                seen.add(key)
                port = rng.choice(bridge.ports).number
                yield Entry(*key, port, too_old=state == 0, changed=state == 1)


def _tags(rng: Random) -> bytes:
    tags = b""
    for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 1, 2, 2, 3))):
        tpid = rng.choice((0x8100, 0x8100, 0x8100, 0x88A8))
        tci = rng.choice(VLANS) | rng.choice((0, 0, 0, 3, 7)) << 13 | (rng.randrange(8) == 0) << 12
        tags += tpid.to_bytes(2, "big") + tci.to_bytes(2, "big")
    return tags


def frame(rng: Random, macs: list[bytes] = MACS, *, to_itself: bool = False) -> bytes:
    """Addresses, tags, a type for experiments, and a payload; at times cut short.

    Not within a second tag: the kernel's helpers refuse to take the first one off then.
    `to_itself`: it may have one address twice; recording does not learn, so it does not find it.
    """
    source = rng.choice([*macs, *macs, bytes(6), GROUPS[1]])
    others = [mac for mac in macs if to_itself or mac != source]
    destination = rng.choice(
        [*others, *others, *others, OLD_MAC, rng.choice(GROUPS), rng.choice(sorted(RESERVED))]
    )
    kind = rng.choice((b"\x88\xb5", b"\x88\xb5", b"\x88\xb5", b"\x08\x06", b"\x08\x00"))
    head = destination + source + _tags(rng) + kind
    length = rng.choice((14, 15, 16, 17, 18, 19, 22, 26, 60, 61, 64, 128, 300, 1514, 1600))
    payload = bytes(number % 251 for number in range(max(0, length - len(head))))
    whole = head + payload
    if rng.randrange(8) or 18 <= length < len(head):
        return whole
    return whole[:length]

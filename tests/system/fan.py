# SPDX-License-Identifier: Apache-2.0
"""A fan of tunnels from one bridge, and what each of them has to carry.

Every kind of tunnel, over IPv4 and IPv6, leads from br0 to one collector at once, so a frame that
all of them carry is one case for each. `Case.outer` says from the rules alone what that is, and
`Fan.check` compares it with what the collector's socket saw: byte for byte but for the time, a
flow's UDP port and the ID of packets that may be fragmented, of which it holds what can be said.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, Self
from uuid import UUID

from tests.oracle.tunnel import Erspan, Outer, decode, encode
from tests.oracle.vlan import TPIDS, Tags, inward, outward, parse, vid
from tests.system.site import ETHERTYPE, Site
from tests.system.underlay import FAR, NEAR, Underlay, is_tunnelled
from tools.lab.capture import Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

from heliograph.kernel.layouts import VlanMode
from heliograph.kernel.snapshot import PortEntry
from heliograph.switch.feedback import LiveCounters, live

MTU = 9300  # of the underlay: room for a jumbo frame and the largest headers
JUMBO = 9000  # of the guests
TRUNK = PortEntry(number=0, ifindex=0, mode=VlanMode.TRUNK, tag=0, trunks=frozenset(), generation=0)
INHERIT = -1  # for tos and ttl
UDP_PORTS = range(32768, 61000)  # Open vSwitch's sources of VXLAN
TICK = 100  # nanoseconds, of ERSPAN's time with granularity 1
SLACK = 10_000  # ticks by which two readings of one clock may differ: 1 ms


@dataclass(frozen=True)
class Tunnel:
    """A tunnel port, and the outer packets that it sends but for what depends on the frame.

    `sends` has its index and hardware ID, and INHERIT where tos or ttl are the inner packet's.
    """

    name: str
    words: str
    sends: Outer
    direction: int | None = None
    drops: bool = False  # heliograph_mtu=drop

    @property
    def headers(self) -> int:
        """Bytes between the outer Ethernet header and the frame."""
        return len(encode(replace(self.sends, inner=b"", tos=0, ttl=0))) - 14

    @property
    def mark(self) -> tuple[object, ...]:
        return recognise(self.sends)


def recognise(outer: Outer) -> tuple[object, ...]:
    """What no two tunnels of a fan have in common. Keyless ones have nothing but their fields."""
    return outer.family, outer.kind, outer.key, outer.csum, outer.seq is not None


def _forms() -> Iterator[tuple[int, str, dict[str, Any], int | None]]:
    """Address family, type and options, fields of what is sent, configured direction; of each
    tunnel, with {0} for its number."""
    sent: dict[str, Any]
    for family, key, csum, seq in product((4, 6), (False, True), (False, True), (False, True)):
        # Each receives another key, even if it sends none; what is "false" is the default.
        words = f"type=gre options:{'key' if key else 'in_key'}={{0}}"
        words += " options:csum=true" * csum + " options:seq=true" * seq
        sent = {"kind": "gre", "key": key or None, "csum": csum, "seq": 0 if seq else None}
        yield family, words, sent, None
    for family, kind in (4, "erspan"), (6, "ip6erspan"):
        words = f"type={kind} options:erspan_ver=1 options:key={{0}}"
        sent = {"kind": "erspan1", "key": True, "seq": 0, "erspan": Erspan(index=0xABCD0 + family)}
        yield family, f"{words} options:erspan_idx=abcd{family}", sent, None
    for family, direction in product((4, 6), (None, 0, 1)):
        words = "type=erspan options:erspan_ver=2 options:erspan_hwid=2f options:key={0}"
        words += "" if direction is None else f" options:erspan_dir={direction}"
        sent = {"kind": "erspan2", "key": True, "seq": 0, "erspan": Erspan(hwid=0x2F)}
        yield family, words, sent, direction
    for family, asked in product((4, 6), (None, True, False)):
        words = "type=vxlan options:key={0}"
        words += "" if asked is None else f" options:csum={str(asked).lower()}"
        csum = family == 6 if asked is None else asked  # rule 109
        yield family, words, {"kind": "vxlan", "key": True, "csum": csum, "dport": 4789}, None


def _tunnels() -> Iterator[Tunnel]:
    for number, (family, words, sent, direction) in enumerate(_forms(), start=901):
        src, dst = (NEAR.ipv4, FAR.ipv4) if family == 4 else (NEAR.ipv6, FAR.ipv6)
        outer = Outer(
            to_mac=bytes.fromhex(FAR.mac.replace(":", "")),
            from_mac=bytes.fromhex(NEAR.mac.replace(":", "")),
            src=src,
            dst=dst,
            inner=b"",
            df=family == 4,
            **sent | {"key": sent["key"] and number},
        )
        remote = f"options:remote_ip={dst}"
        yield Tunnel(f"t{number}", f"{words.format(number)} {remote}", outer, direction)


TUNNELS = tuple(_tunnels())


@dataclass(frozen=True)
class Case:
    """What is configured beside the tunnels: the modes of the ports, and what a mirror cuts.

    A copy is taken where the frame comes in, or, if `sink` is the port that it leaves by, there;
    without `copy` the frame itself goes into the tunnels.
    """

    source: PortEntry = TRUNK
    sink: PortEntry | None = None
    tunnels: PortEntry = TRUNK
    snaplen: int = 0
    mtu: int = MTU
    copy: bool = True

    def image(self, frame: bytes) -> tuple[bytes, int, int]:
        """The inner frame before it is cut, its VLAN by rule 18, and its PCP."""
        packet = parse(frame, 1)
        assert packet is not None
        priority, inside = _pcp(packet.tags), inward(self.source, packet.tags)
        if self.sink:  # rule 17: as if it were received where it leaves
            seen = outward(self.sink, inside, priority)
            priority, inside = _pcp(seen), inward(self.sink, seen)
        tags = outward(self.tunnels, inside, priority)
        return replace(packet, tags=tags).wire, vid(inside), priority

    def outer(self, tunnel: Tunnel, frame: bytes) -> Outer | None:
        """What a tunnel carries of a frame, or None if it does not fit the way (rule 122)."""
        whole, vlan, priority = self.image(frame)
        length, room, tagged = len(whole), self.mtu - tunnel.headers, is_tagged(whole)
        if self.snaplen:  # D4, D12
            length = min(length, max(self.snaplen, 18 if tagged else 0))
        if length > room and (tunnel.drops or not self.copy):
            return None
        inner = whole[: min(length, room)]
        erspan = tunnel.sends.erspan and replace(
            tunnel.sends.erspan,
            vlan=vlan,
            cos=priority,
            truncated=int(len(inner) < len(whole)),
            **self._of_version(tunnel, len(whole), tagged),
        )
        return replace(tunnel.sends, inner=inner, erspan=erspan, **_from_inside(tunnel, whole))

    def _of_version(self, tunnel: Tunnel, length: int, tagged: bool) -> dict[str, int]:
        """D5 and rule 118: what only one version of ERSPAN says."""
        if tunnel.sends.kind == "erspan1":
            return {"encapsulation": 3 if tagged else 0}
        bso = 1 if length < 60 else 2 if length > 1514 + 4 * tagged else 0
        taken = int(self.sink is not None)
        direction = taken if tunnel.direction is None else tunnel.direction
        return {"bso": bso, "p": 1, "granularity": 1, "direction": direction}


def is_tagged(frame: bytes) -> bool:
    return int.from_bytes(frame[12:14], "big") in TPIDS


def _pcp(tags: Tags) -> int:
    return tags[0].pcp if tags else 0


def _from_inside(tunnel: Tunnel, frame: bytes) -> dict[str, Any]:
    """Rule 110: tos and ttl, which may be those of an IP packet in the frame, and ECN, which is."""
    packet = parse(frame, 2)
    assert packet is not None
    kind, ip = packet.rest[:2], packet.rest[2:]
    if kind == b"\x08\0" and len(ip) >= 20:
        tos, ttl = ip[1], ip[8]
    elif kind == b"\x86\xdd" and len(ip) >= 40:
        tos, ttl = int.from_bytes(ip[:2], "big") >> 4 & 0xFF, ip[7]
    else:
        tos, ttl = 0, 64
    return {
        "tos": (tos & 0xFC if tunnel.sends.tos == INHERIT else tunnel.sends.tos)
        | (2 if tos & 3 == 3 else tos & 3),
        "ttl": ttl if tunnel.sends.ttl == INHERIT else tunnel.sends.ttl,
    }


def flow(frame: bytes) -> bytes:
    """What tells flows apart: tags, type, addresses, and what is behind them (the ports)."""
    at = 14
    while int.from_bytes(frame[at - 2 : at], "big") in TPIDS:
        at += 4
    found, ip = frame[12:at], frame[at:]
    if frame[at - 2 : at] == b"\x08\0":
        return found + ip[9:10] + ip[12:24]
    return found + (ip[6:7] + ip[8:44] if frame[at - 2 : at] == b"\x86\xdd" else b"")


def unlike(found: Outer, wanted: Outer) -> dict[str, tuple[object, object]]:
    """The fields that differ, as they are and as they should be."""
    both = {f.name: (getattr(found, f.name), getattr(wanted, f.name)) for f in fields(Outer)}
    return {name: (is_, should) for name, (is_, should) in both.items() if is_ != should}


def ticks() -> int:
    """The wall clock as ERSPAN version 2 says it, but for its width."""
    return time.time_ns() // TICK


@dataclass
class Fan:
    """Bridge br0 with guests p1 and p2 and tunnels to the collector of an underlay."""

    site: Site
    under: Underlay
    tunnels: tuple[Tunnel, ...]
    numbers: dict[str, int] = field(default_factory=dict)  # the next sequence number, by name
    flows: dict[tuple[str, bytes], int] = field(default_factory=dict)  # their UDP source ports
    uuids: dict[tuple[str, str], UUID] = field(default_factory=dict)  # by table and name

    @classmethod
    def build(cls, lab: Lab, tunnels: tuple[Tunnel, ...] = TUNNELS) -> Self:
        switch = Heliograph(lab)
        switch.start()
        site = Site(lab, switch, Tools(switch.rundir), {})
        under = Underlay.build(lab, switch.host)
        under.set_mtu(MTU)
        under.ready()
        site.ovs.vsctl("add-br br0")
        for guest in "p1", "p2":
            site.uplink("br0", guest)
            for namespace in switch.host, site.guests[guest]:
                namespace.ip(f"link set {guest} mtu {JUMBO}")
        words = [f"-- add-port br0 {t.name} -- set interface {t.name} {t.words}" for t in tunnels]
        site.ovs.vsctl(" ".join(words))
        fan = cls(site, under, tunnels, dict.fromkeys((t.name for t in tunnels), 0))
        fan._learn("port")
        return fan

    def _learn(self, table: str) -> None:
        printed = self.site.ovs.vsctl("--format=json", "--columns=name,_uuid", "list", table)
        rows = json.loads(printed)["data"] if printed else []
        self.uuids |= {(table, name): UUID(uuid[1]) for name, uuid in rows}

    def mirror(self, columns: str) -> None:
        """A mirror of these columns for each tunnel, in place of those there are: m901, ..."""
        ports = "".join(f"-- --id=@{name} get port {name} " for name in ("p1", "p2"))
        made = [
            f"-- --id=@{t.name} get port {t.name} -- --id=@m{t.name} create mirror"
            f" name=m{t.name} output_port=@{t.name} {columns}"
            for t in self.tunnels
        ]
        mirrors = ",".join(f"@m{t.name}" for t in self.tunnels)
        self.site.ovs.vsctl(f"{ports} {' '.join(made)} -- set bridge br0 mirrors={mirrors}")
        self._learn("mirror")

    def unmirror(self) -> None:
        self.site.ovs.vsctl("clear bridge br0 mirrors")

    def each(self, table: str, words: str, *, command: str = "set") -> None:
        """The same change of every tunnel's Port or Interface row, or its mirror's."""
        prefix = "m" if table == "mirror" else ""
        changes = [f"-- {command} {table} {prefix}{t.name} {words}" for t in self.tunnels]
        self.site.ovs.vsctl(" ".join(changes))

    def counters(self) -> LiveCounters:
        found = live(self.site.switch.rundir)
        assert found is not None
        return found

    def settle(self, mtu: int) -> None:
        """Set the underlay's MTU, and wait until every tunnel keeps to it."""
        self.under.set_mtu(mtu)
        most = JUMBO + max(tunnel.headers for tunnel in self.tunnels)
        assert eventually(lambda: self._longest() == 14 + min(mtu, most))

    def _longest(self) -> int:
        """The length of the longest outer frame when the guest says the longest that it can."""
        with self.under.capture() as capture:
            self.site.send("p1", bytes(12) + ETHERTYPE + bytes(JUMBO - 14))
            count = len(self.tunnels)
            seen = capture.collect(count, keep=is_tunnelled, timeout=0.5, quiet=0.05)
        self.carried(seen)
        return max((len(frame.data) for frame in seen), default=0)

    def carried(self, seen: Sequence[Frame]) -> dict[str, list[Outer]]:
        """What each tunnel carried, by its name; the next numbers follow from it."""
        names = {tunnel.mark: tunnel.name for tunnel in self.tunnels}
        found = defaultdict(list)
        for frame in seen:
            outer = decode(frame.data)
            name = names[recognise(outer)]
            found[name].append(outer)
            if outer.seq is not None:
                self.numbers[name] = outer.seq + 1
        return found

    def check(
        self, case: Case, frames: Sequence[bytes], *, to: Tunnel | None = None
    ) -> list[Frame]:
        """Let p1 say these frames, and demand that every tunnel (or the one) carries what the case
        says, and that all of it is counted; returns the outer frames."""
        wanted = {
            tunnel: [
                case.outer(tunnel, frame) if to in (None, tunnel) else None for frame in frames
            ]
            for tunnel in self.tunnels
        }
        count = sum(outer is not None for outers in wanted.values() for outer in outers)
        numbers, before, begin = dict(self.numbers), self.counters(), ticks()
        with self.under.capture() as capture:
            self.site.send("p1", *frames)
            seen = capture.collect(count, keep=is_tunnelled, quiet=0.1)
        end, after = ticks(), self.counters()
        assert not any(frame.pending_checksum for frame in seen)
        found = self.carried(seen)
        for tunnel, want in wanted.items():
            pairs = [(frame, outer) for frame, outer in zip(frames, want, strict=True) if outer]
            there = found[tunnel.name]
            assert len(there) == len(pairs), tunnel.words
            for number, ((frame, outer), one) in enumerate(zip(pairs, there, strict=True)):
                numbered = outer.seq is not None
                expected = replace(outer, seq=numbers[tunnel.name] + number if numbered else None)
                way = flow(frame) + flow(case.image(frame)[0])
                expected = self._filled(tunnel, way, expected, one)
                assert one == expected, f"{tunnel.words}: {unlike(one, expected)}, of {frame!r}"
                if one.kind == "erspan2":
                    assert one.erspan
                    passed = (one.erspan.timestamp - begin + SLACK) % 2**32
                    assert passed <= end - begin + 2 * SLACK, tunnel.words
            if to in (None, tunnel):
                self._count(tunnel, case, frames, want, (before, after))
        return seen

    def _filled(self, tunnel: Tunnel, way: bytes, wanted: Outer, found: Outer) -> Outer:
        """What is wanted, with what was found where the rules leave it open."""
        if wanted.kind == "vxlan":
            assert found.sport
            assert found.sport in UDP_PORTS
            port = self.flows.setdefault((tunnel.name, way), found.sport)
            wanted = replace(wanted, sport=port)
        if wanted.family == 4 and not wanted.df:
            wanted = replace(wanted, ident=found.ident)
        if wanted.kind == "erspan2" and wanted.erspan and found.erspan:
            erspan = replace(wanted.erspan, timestamp=found.erspan.timestamp)
            wanted = replace(wanted, erspan=erspan)
        return wanted

    def _count(
        self,
        tunnel: Tunnel,
        case: Case,
        frames: Sequence[bytes],
        want: Sequence[Outer | None],
        read: tuple[LiveCounters, LiveCounters],
    ) -> None:
        """D2, rule 101."""
        lengths = [len(outer.inner) for outer in want if outer]
        lost = Counter(drop_mtu=len(want) - len(lengths))
        cut = self._cut_to_mtu(tunnel, case, frames, want)
        port = self.uuids["port", tunnel.name]
        then, now = (Counter(counters.ports[port]) for counters in read)
        assert now - then == +(
            Counter(tx_packets=len(lengths), tx_bytes=sum(lengths), cut_mtu=cut)
            + lost
            + Counter(tx_dropped=lost["drop_mtu"])
        ), f"{tunnel.words}: {now - then}"
        if case.copy:
            mirror = self.uuids["mirror", f"m{tunnel.name}"]
            then, now = (Counter(counters.mirrors[mirror]) for counters in read)
            selected = Counter(tx_packets=len(frames), tx_bytes=sum(map(len, frames)), cut_mtu=cut)
            assert now - then == +(selected + lost), (
                f"{tunnel.words}: {now - then}, not {selected + lost}"
            )

    @staticmethod
    def _cut_to_mtu(
        tunnel: Tunnel, case: Case, frames: Sequence[bytes], want: Sequence[Outer | None]
    ) -> int:
        """How many were shorter than they would be with all the room in the world."""
        wide = replace(case, mtu=1 << 16)
        return sum(
            outer is not None and outer != wide.outer(tunnel, frame)
            for frame, outer in zip(frames, want, strict=True)
        )

# SPDX-License-Identifier: Apache-2.0
"""Random flow tables and groups for the frames of flow_pipeline_frames.

Matches are made of what some frame has, so most are hit. No two flows of a table have the same
priority: which of them would win is nobody's promise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from tests.oracle.flow_pipeline_frame import CFI, Key, parse
from tests.oracle.flow_pipeline_frames import ADDRESSES, ADDRESSES6, DESTINATIONS, SOURCES, Frames
from tests.oracle.flow_pipeline_key import has

from heliograph.openflow import actions as a
from heliograph.openflow.fields import FIELDS, PREREQUISITES
from heliograph.openflow.flows import (
    Bucket,
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
)
from heliograph.openflow.match import Masked, Match

TABLES = (0, 1, 2, 5)
GROUPS = (1, 2, 3)
METADATA = ("reg0", "reg1", "reg7", "metadata")
_MATCHED = [
    name
    for name, known in FIELDS.items()
    if known.prerequisite in {"ARP", "IP", "IPv4", "IPv6", "TCP", "UDP", "ICMPv4", "ICMPv6", "ND"}
    or known.prerequisite in {"SOLICIT", "ADVERT"}
]
_NOT_MATCHED = {"nw_tos", "vlan_pcp"}  # said by other fields
WRITTEN = [
    name
    for name in _MATCHED
    if FIELDS[name].writable and name not in {"arp_op", "icmp_type", "icmpv6_type"}
]


@dataclass
class Cases:
    """`ports`: what is output to. `chosen`: also select groups, of whose buckets a switch takes
    the one it likes. `cuts`: frames are cut, and then not tagged: Open vSwitch finds how much to
    cut before it does to the frame what it has put off until then. `normal`: NORMAL is used, and
    then no second tag pushed: Open vSwitch's NORMAL loses it behind one of VLAN 0."""

    random: Random
    ports: Sequence[int] = (1, 2, 3, 4, a.Port.LOCAL)
    strict: bool = True  # as from OpenFlow 1.3 on; else as in 1.0
    normal: bool = True
    chosen: bool = False
    cuts: bool = False
    pushes: bool = True
    samples: list[bytes] = field(default_factory=list)

    def mods(self, flows: int = 25) -> list[FlowMod | GroupMod]:
        """Groups, then flows."""
        frames = Frames(self.random)
        self.samples = [frames.frame() for _ in range(30)]
        mods: list[FlowMod | GroupMod] = [self.group(number) for number in GROUPS]
        priorities = self.random.sample(range(1, 65000), flows)
        for priority in priorities:
            table = self.random.choice((0, *TABLES))
            mods.append(self.flow(table, priority))
        # Something that many frames come to.
        mods += [self.flow(table, 0, Match()) for table in TABLES if self.random.random() < 0.7]
        return mods

    def flow(self, table: int, priority: int, match: Match | None = None) -> FlowMod:
        if match is None:
            match = self.match(table)
        return FlowMod(
            command=FlowCommand.ADD,
            table_id=table,
            priority=priority,
            match=match,
            actions=self.actions(match, table),
            cookie=self.random.getrandbits(32),
        )

    # Matches

    def match(self, table: int) -> Match:
        random = self.random
        key = dict(parse(random.choice(self.samples), random.choice(self.ports)).key)
        fields: dict[str, Masked] = {}
        if random.random() < 0.35:
            fields["in_port"] = key["in_port"], 0xFFFF
        if random.random() < 0.25:
            self._vlan(fields, key)
        if random.random() < 0.3:
            name = random.choice(["eth_dst", "eth_src"])
            fields[name] = key[name], random.choice([(1 << 48) - 1, 0xFF, 1 << 40, 0xFFFF00000000])
        if table and random.random() < 0.4:
            name = random.choice(METADATA)
            fields[name] = random.choice([(0, 1), (1, 3), (0, 0xFFFFFFFF), (5, 0xFFFFFFFF)])
        if random.random() < 0.75:
            fields["eth_type"] = key["eth_type"], 0xFFFF
            self._deeper(fields, key)
        return Match.of(fields)

    def _vlan(self, fields: dict[str, Masked], key: Key) -> None:
        tci = key.get("vlan_tci", 0)
        masks = [0x1FFF, 0x1FFF, CFI, 0xF000, 0xFFFF, 0x1003] if tci else [0x1FFF, 0xFFFF, CFI]
        fields["vlan_tci"] = tci, self.random.choice(masks)

    def _deeper(self, fields: dict[str, Masked], key: Key) -> None:
        random = self.random
        able = [n for n in _MATCHED if n not in _NOT_MATCHED and has(key, FIELDS[n].prerequisite)]
        for name in random.sample(able, min(len(able), random.choice([0, 1, 1, 2, 3]))):
            known = FIELDS[name]
            for needed, values in PREREQUISITES[known.prerequisite]:
                if needed != "eth_type":
                    fields[needed] = key.get(needed, values[0]), FIELDS[needed].all_ones
            if known.prerequisite in {"ND", "SOLICIT", "ADVERT"}:
                fields["icmpv6_code"] = 0, 0xFF
            if name not in fields:
                fields[name] = key.get(name, 0), self._mask(name)
        if "nw_proto" in fields and fields.get("ip_frag", (0, 0))[0] & 2:
            del fields["ip_frag"]  # else there are no ports

    def _mask(self, name: str) -> int:
        known, random = FIELDS[name], self.random
        whole = known.all_ones
        if name == "ip_frag":
            return random.choice([1, 3])
        if not known.maskable or random.random() < 0.5:
            return whole
        return random.choice(
            [whole ^ 0xFF, whole ^ 1, random.getrandbits(known.bits) or 1, whole << 4 & whole]
        )

    # Actions

    def actions(self, match: Match, table: int, depth: int = 0) -> a.Actions:
        random = self.random
        chosen: list[a.Action] = []
        for _ in range(random.choice([1, 1, 2, 3, 4, 6])):
            if random.random() < 0.45:
                chosen.append(self._out())
            else:
                chosen.append(self._action(match, table, depth))
        if random.random() < 0.5:
            chosen.append(self._out())
        if self.strict and not depth and random.random() < 0.2:
            later = [number for number in TABLES if number > table]
            chosen += [a.GotoTable(random.choice(later))] if later else []
        return tuple(chosen)

    def _out(self) -> a.Action:
        random = self.random
        port = random.choice(self.ports)
        if self.cuts and random.random() < 0.4:
            return a.Output(port, random.choice([22, 60, 64, 200, 1500]))
        if random.random() < 0.3:
            reserved = [a.Port.IN_PORT, a.Port.ALL, a.Port.FLOOD]
            normal = self.normal and not self.cuts
            return a.Output(random.choice([*reserved, *([a.Port.NORMAL] if normal else [])]))
        return a.Output(port)

    def _action(self, match: Match, table: int, depth: int) -> a.Action:
        random = self.random
        r = random.random()
        later = [number for number in TABLES if number > table]
        if r < 0.06 and depth < 2:
            return a.Clone(self.actions(match, table, depth + 1))
        if r < 0.12:
            return a.Group(random.choice(GROUPS))
        if r < 0.24 and later:
            port = random.choice([None, None, None, *self.ports])
            return a.Resubmit(port, random.choice(later))
        if r < 0.27:
            return a.Exit()
        return self.change({n: v & m for n, v, m in match.fields})

    def change(self, matched: Key) -> a.Action:
        """An action that changes the packet, mostly one that packets so matched have."""
        random = self.random
        r = random.random()
        if r < 0.2 and not self.cuts:
            return self._tag()
        if r < 0.4:
            return self._old(matched)
        known = {"eth_type": 0, **matched}
        able = [n for n in WRITTEN if has(known, FIELDS[n].prerequisite)]
        if not self.strict and random.random() < 0.3:
            able = WRITTEN
        name = random.choice([*able, "eth_src", "eth_dst", *METADATA, *METADATA])
        value = self._value(name)
        bits = FIELDS[name].bits
        kind = random.random()
        if kind < 0.2 and bits <= 64:
            size = random.randint(1, bits)
            offset = random.randint(0, bits - size)
            if name not in {"eth_src", "eth_dst"}:
                return a.Load(a.Subfield(name, offset, size), value >> offset & (1 << size) - 1)
        if kind < 0.4 and name not in {"eth_src", "eth_dst", "nw_tos"}:
            return self._move(name, able)
        whole = FIELDS[name].all_ones
        masked = FIELDS[name].maskable and random.random() < 0.3
        mask = (random.getrandbits(bits) or whole) if masked else whole
        if name in {"eth_src", "eth_dst"}:
            mask = whole
        return a.SetField(name, value & mask, mask)

    def _move(self, name: str, able: list[str]) -> a.Action:
        random = self.random
        other = random.choice([*METADATA, "eth_src", "eth_dst", "vlan_tci", *able])
        one, two = FIELDS[name], FIELDS[other]
        size = random.randint(1, min(one.bits, two.bits))
        here = a.Subfield(name, random.randint(0, one.bits - size), size)
        there = a.Subfield(other, random.randint(0, two.bits - size), size)
        back = other not in {"eth_src", "eth_dst", "vlan_tci", "nw_tos"}
        return a.Move(here, there) if back and random.random() < 0.5 else a.Move(there, here)

    def _value(self, name: str) -> int:
        random, bits = self.random, FIELDS[name].bits
        pools: dict[str, Sequence[bytes]] = {
            "eth_src": SOURCES,
            "eth_dst": DESTINATIONS,
            "ip_src": ADDRESSES,
            "ip_dst": ADDRESSES,
            "ipv6_src": ADDRESSES6,
            "ipv6_dst": ADDRESSES6,
        }
        if name in pools:
            return int.from_bytes(random.choice(pools[name]), "big")
        if name in METADATA:
            return random.choice([0, 1, 5, 0xFFFF0001])
        if name == "nw_tos":
            return random.getrandbits(6) << 2
        return random.choice([random.getrandbits(bits), 0, 1, (1 << bits) - 1])

    def _tag(self) -> a.Action:
        random = self.random
        vid = random.choice([5, 6, 7, 4095, *([] if self.normal else [0])])
        pushes = self.pushes and not self.normal
        choices: list[a.Action] = [
            a.StripVlan(),
            a.SetField("vlan_vid", CFI | vid, 0x1FFF),
            a.SetField("vlan_tci", CFI | 3 << 13 | vid, 0xFFFF),
        ]
        if self.strict:
            choices += [a.SetField("vlan_pcp", 5, 7)]
            choices += [a.PushVlan(), a.PushVlan(0x88A8)] if pushes else []
        if pushes or not self.strict:  # from 1.3 on they push
            choices += [a.SetVlanVid(vid), a.SetVlanPcp(random.choice([0, 3, 7]))]
        return random.choice(choices)

    def _old(self, matched: Key) -> a.Action:
        """An action of OpenFlow 1.0, or a dec_ttl."""
        random = self.random
        address = int.from_bytes(random.choice(ADDRESSES), "big")
        known = {"eth_type": 0, **matched}
        ipv4: list[a.Action] = [a.SetIpv4Src(address), a.SetIpv4Dst(address)]
        ip: list[a.Action] = [a.SetTos(random.getrandbits(6) << 2), a.DecTtl(), a.DecTtl()]
        ports: list[a.Action] = [
            a.SetTpSrc(random.choice([0, 81])),
            a.SetTpDst(random.getrandbits(16)),
        ]
        any_ethernet: list[a.Action] = [
            a.SetEthSrc(int.from_bytes(random.choice(SOURCES), "big")),
            a.SetEthDst(int.from_bytes(random.choice(DESTINATIONS), "big")),
        ]
        loose = not self.strict
        choices = list(any_ethernet)
        choices += ipv4 if loose or has(known, "IPv4") else []
        choices += ip if loose or has(known, "IP") else []
        choices += ports if has(known, "TCP") or has(known, "UDP") else []
        return random.choice(choices)

    # Groups

    def group(self, number: int) -> GroupMod:
        random = self.random
        kinds = [GroupType.ALL, GroupType.ALL, GroupType.INDIRECT, GroupType.FAST_FAILOVER]
        kind = random.choice([*kinds, *([GroupType.SELECT] if self.chosen else [])])
        count = 1 if kind == GroupType.INDIRECT else random.choice([1, 2, 3])
        return GroupMod(
            command=GroupCommand.ADD,
            group_id=number,
            type=kind,
            buckets=tuple(self.bucket(kind, n) for n in range(count)),
        )

    def bucket(self, kind: GroupType, number: int) -> Bucket:
        random = self.random
        more: list[a.Action] = [
            a.Resubmit(None, random.choice(TABLES)),
            a.Clone((a.Output(1),)),
            a.Exit(),
        ]
        actions: list[a.Action] = []
        for _ in range(random.choice([0, 1, 1, 2, 2, 3])):
            r = random.random()
            actions.append(
                self._out() if r < 0.6 else self.change({}) if r < 0.9 else random.choice(more)
            )
        watched = kind == GroupType.FAST_FAILOVER
        return Bucket(
            actions=tuple(actions),
            bucket_id=number,
            weight=random.choice([1, 1, 3]) if kind == GroupType.SELECT else 0,
            watch_port=random.choice([1, 2, 99]) if watched else None,
        )

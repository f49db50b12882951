# SPDX-License-Identifier: Apache-2.0
"""What flow tables do with one frame: a linear search and an interpreter, and nothing of ours.

Written from ovs-actions(7) and OpenFlow, and held against Open vSwitch's userspace datapath
(tests/system/test_flows_beside.py). Budgets are not modelled: tables that go round raise
TooDeepError. Of a select group the buckets are given in turn, for a switch may choose any.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Protocol

from tests.oracle.flow_pipeline_frame import (
    CFI,
    LATER,
    TCP,
    TPIDS,
    Key,
    Parsed,
    emit,
    parse,
    tags_of,
)
from tests.oracle.flow_pipeline_key import has, read, set_tag, write

from heliograph.openflow import actions as a
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.flows import Bucket, GroupDesc, GroupType
from heliograph.openflow.match import Match

DEPTH = 64
ACTION, INVALID_TTL = 1, 2  # reasons of packet-ins
_METADATA = frozenset(n for n in FIELDS if n.lstrip("x").startswith("reg")) | {
    "in_port",
    "metadata",
}
_RESERVED = frozenset(bytes.fromhex("0180c20000") + bytes([last]) for last in range(16))


class TooDeepError(Exception):
    """More resubmits, clones and groups in one another than there may be."""


class Flow(Protocol):
    @property
    def table_id(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def match(self) -> Match: ...
    @property
    def actions(self) -> a.Actions: ...


@dataclass(frozen=True)
class Sent:
    """`whole`: what it was before max_len cut it, with so many `tags` that the switch knows of.
    `flood`: by FLOOD, ALL or NORMAL."""

    port: int
    data: bytes
    whole: bytes
    tags: int
    flood: bool = False


@dataclass(frozen=True)
class Normal:
    """The frame is left to NORMAL, in a pipeline that does not do that itself."""

    in_port: int
    data: bytes
    tags: int


@dataclass(frozen=True)
class Told:
    """To controllers."""

    reason: int
    table: int
    data: bytes
    key: Mapping[str, int]
    max_len: int
    controller_ids: tuple[int, ...]


@dataclass(frozen=True)
class Cleared:
    """Rule 28: an action that may change the frame."""


@dataclass
class Outcome:
    events: list[Sent | Told | Cleared | Normal] = field(default_factory=list)
    hits: list[tuple[int, Flow | None]] = field(default_factory=list)  # None: missed
    misses: int = 0  # of the first table and of goto_table

    @property
    def sent(self) -> list[Sent]:
        return [event for event in self.events if isinstance(event, Sent)]

    @property
    def told(self) -> list[Told]:
        return [event for event in self.events if isinstance(event, Told)]


class Pipeline:
    """The tables, groups and ports of a bridge; `ports` are numbers, LOCAL is 0xfffe.

    `reserved`: outputs of mirrors, to which neither FLOOD nor ALL goes. `normal`: NORMAL floods;
    else it is an event. `ports_of_first`: a first fragment is looked up with its ports, as after
    `ovs-ofctl set-frags BRIDGE nx-match`.
    """

    def __init__(
        self,
        flows: Iterable[Flow],
        ports: Collection[int],
        groups: Iterable[GroupDesc] = (),
        *,
        no_flood: Collection[int] = (),
        reserved: Collection[int] = (),
        down: Collection[int] = (),
        normal: bool = True,
        vlan_limit: int = 1,
        ports_of_first: bool = False,
    ) -> None:
        self.ports, self.no_flood, self.down = list(ports), no_flood, down
        self.reserved, self.normal = reserved, normal
        self.groups = {group.group_id: group for group in groups}
        self.vlan_limit, self.ports_of_first = vlan_limit, ports_of_first
        self._able = {
            number: sum(bucket.weight > 0 for bucket in group.buckets) or 1
            for number, group in self.groups.items()
            if group.type == GroupType.SELECT
        }
        self._tables: dict[int, list[Flow]] = {}
        for flow in sorted(flows, key=lambda flow: -flow.priority):
            self._tables.setdefault(flow.table_id, []).append(flow)

    @property
    def choices(self) -> int:
        """How many numbers `run` may be given, for each bucket of each select group."""
        return prod(self._able.values())

    def bucket(self, group_id: int, choice: int) -> int:
        """Which of the buckets that have a weight a select group takes."""
        for number, able in self._able.items():
            if number == group_id:
                return choice % able
            choice //= able
        raise KeyError(group_id)

    def run(self, data: bytes, in_port: int, choice: int = 0) -> Outcome:
        """`choice`: of buckets in select groups, below `choices`."""
        parsed = parse(data, in_port, self.vlan_limit)
        walk = _Walk(self, parsed, choice)
        walk.table(0, in_port, counts=True)
        if walk.action_set:
            walk.actions(executed(walk.action_set))
        return walk.outcome

    def packet_out(self, data: bytes, in_port: int, actions: a.Actions) -> Outcome:
        """What a controller has done with a frame of its own."""
        walk = _Walk(self, parse(data, in_port, self.vlan_limit), 0)
        walk.actions(actions)
        return walk.outcome

    def lookup(self, table: int, key: Key) -> Flow | None:
        if key.get("ip_frag") and not self.ports_of_first:
            key = {n: v for n, v in key.items() if n not in _PORTS}
        for flow in self._tables.get(table, ()):
            if all(key.get(name, 0) & mask == value for name, value, mask in flow.match):
                return flow
        return None


_PORTS = frozenset(
    {"tcp_src", "tcp_dst", "udp_src", "udp_dst", "icmp_type", "icmp_code"}
    | {"icmpv6_type", "icmpv6_code"}
)
_ONCE = (a.StripVlan, a.PushVlan, a.DecTtl)  # in an action set, in this order
_FINAL = (a.Resubmit, a.Output, a.Group)  # the last one that is there
_NEVER = (a.Clone, a.Exit, a.Controller, a.Note)  # Open vSwitch takes them in buckets


def executed(action_set: Iterable[a.Action]) -> a.Actions:
    """An action set, also that of a bucket, in the order in which it is carried out."""
    actions = [x for x in action_set if not isinstance(x, a.Output) or x.max_len is None]
    ordered: list[a.Action] = []
    for kind in _ONCE:
        ordered += [action for action in actions if isinstance(action, kind)][-1:]
    finals: list[list[a.Action]] = [
        [action for action in actions if isinstance(action, kind)] for kind in _FINAL
    ]
    if not any(finals):
        return ()
    apart = (*_ONCE, *_FINAL, *_NEVER)
    ordered += [action for action in actions if not isinstance(action, apart)]
    return (*ordered, next(found for found in reversed(finals) if found)[-1])


class _Walk:
    def __init__(self, pipeline: Pipeline, parsed: Parsed, choice: int) -> None:
        self.pipeline, self.parsed, self.choice = pipeline, parsed, choice
        self.key = dict(parsed.key)
        self.outcome = Outcome()
        self.action_set: list[a.Action] = []
        self.table_id = 0
        self.exit = False
        self.depth = 0

    def table(self, table_id: int, in_port: int, *, counts: bool = False) -> None:
        """Look up with this port, and do what is found there. `counts`: as a miss, if not."""
        before, self.table_id = self.table_id, table_id
        flow = self.pipeline.lookup(table_id, {**self.key, "in_port": in_port})
        self.outcome.hits.append((table_id, flow))
        self.outcome.misses += counts and flow is None
        if flow is not None:
            self.depth += 1
            if self.depth > DEPTH:
                raise TooDeepError
            self.actions(flow.actions)
            self.depth -= 1
        self.table_id = before

    def actions(self, actions: a.Actions) -> None:
        for action in actions:
            if self.exit:
                return
            if self._clears(action):
                self.outcome.events.append(Cleared())
            if isinstance(action, a.DecTtl) and self._expired(action):
                return
            self._one(action)

    def _one(self, action: a.Action) -> None:
        match action:
            case a.Output():
                self._output(action)
            case a.Controller(max_len=most, controller_id=to):
                self._tell(ACTION, most, (to,))
            case a.Group(group_id):
                self._group(self.pipeline.groups[group_id])
            case a.Resubmit(port, table):
                in_port = self.key["in_port"] if port is None else port
                self.table(self.table_id if table is None else table, in_port)
            case a.GotoTable(table):
                self.table(table, self.key["in_port"], counts=True)
            case a.Clone(nested):
                self._apart(nested)
            case a.Exit():
                self.exit = True
            case a.ClearActions():
                self.action_set = []
            case a.WriteActions(written):
                self.action_set += written
            case _:
                self._change(action)

    def _change(self, action: a.Action) -> None:
        match action:
            case a.WriteMetadata(value, mask):
                self._write("metadata", value, mask)
            case a.SetField(name, value, mask):
                self._write(name, value, mask)
            case a.Load(target, value):
                self._write(target.field, value << target.offset, _ones(target))
            case a.Move(source, target):
                self._move(source, target)
            case a.PushVlan() | a.StripVlan() | a.SetVlanVid() | a.SetVlanPcp():
                self._tags(action)
            case _:
                self._header(action)

    def _apart(self, actions: a.Actions) -> None:
        """Whatever they change is as before behind them."""
        saved = dict(self.key), self.action_set
        self.action_set = []
        self.depth += 1
        self.actions(actions)
        self.depth -= 1
        self.key, self.action_set = saved

    def _can_write(self, name: str) -> bool:
        """Other than Open vSwitch, which writes into the payload: not type and code of a later
        fragment, which match as 0."""
        prerequisite = FIELDS[name].prerequisite
        if prerequisite.startswith("ICMP") and self.key.get("ip_frag") == LATER:
            return False
        return has(self.key, prerequisite)

    def _write(self, name: str, value: int, mask: int) -> None:
        if self._can_write(name):
            write(self.key, name, read(self.key, name) & ~mask | value & mask)

    def _move(self, source: a.Subfield, target: a.Subfield) -> None:
        if has(self.key, FIELDS[source.field].prerequisite):
            value = (read(self.key, source.field) & _ones(source)) >> source.offset
            self._write(target.field, value << target.offset, _ones(target))

    def _tags(self, action: a.Action) -> None:
        key = self.key
        match action:
            case a.PushVlan(tpid):
                key["tpid1"], key["tci1"] = key.get("tpid", 0), key.get("vlan_tci", 0)
                key["tpid"], key["vlan_tci"] = tpid, CFI
            case a.StripVlan():
                self._strip()
            case a.SetVlanVid(vid):
                set_tag(key, key.get("vlan_tci", 0) & ~0xFFF | vid | CFI)
            case a.SetVlanPcp(pcp):
                set_tag(key, key.get("vlan_tci", 0) & 0xFFF | pcp << 13 | CFI)

    def _header(self, action: a.Action) -> None:
        kind = "tcp" if self.key.get("nw_proto") == TCP else "udp"
        match action:
            case a.SetEthSrc(address):
                self.key["eth_src"] = address
            case a.SetEthDst(address):
                self.key["eth_dst"] = address
            case a.SetIpv4Src(address):
                self._write("ip_src", address, 0xFFFF_FFFF)
            case a.SetIpv4Dst(address):
                self._write("ip_dst", address, 0xFFFF_FFFF)
            case a.SetTos(tos):
                self._write("nw_tos", tos, 0xFC)
            case a.SetTtl(ttl):
                self._write("nw_ttl", ttl, 0xFF)
            case a.SetTpSrc(port):
                self._write(f"{kind}_src", port, 0xFFFF)
            case a.SetTpDst(port):
                self._write(f"{kind}_dst", port, 0xFFFF)

    def _strip(self) -> None:
        key, tags = self.key, len(tags_of(self.key))
        if tags > 1:
            key["tpid"], key["vlan_tci"] = key["tpid1"], key["tci1"]
        if tags:
            for name in ("tpid1", "tci1") if tags > 1 else ("tpid", "vlan_tci"):
                key[name] = 0

    def _expired(self, action: a.DecTtl) -> bool:
        if not has(self.key, "IP"):
            return False
        if self.key.get("nw_ttl", 0) <= 1:
            self._tell(INVALID_TTL, 0xFFFF, action.controller_ids)
            return True
        self.key["nw_ttl"] -= 1
        return False

    def _tell(self, reason: int, most: int, controllers: tuple[int, ...]) -> None:
        data = emit(self.parsed, self.key)[:most]
        told = Told(reason, self.table_id, data, dict(self.key), most, controllers)
        self.outcome.events.append(told)

    def _clears(self, action: a.Action) -> bool:
        """Rule 28."""
        match action:
            case a.SetField(name) | a.Load(a.Subfield(name)):
                return name not in _METADATA and self._can_write(name)
            case a.SetIpv4Src() | a.SetIpv4Dst():
                return has(self.key, "IPv4")
            case a.SetTos() | a.SetTtl():
                return has(self.key, "IP")
            case a.SetTpSrc() | a.SetTpDst():
                return has(self.key, "IP") and self.key.get("ip_frag") != LATER
            case _:
                return isinstance(action, _CLEARING)

    # Where to

    def _output(self, output: a.Output) -> None:
        in_port, most = self.key["in_port"], output.max_len
        match output.port:
            case a.Port.IN_PORT:
                self._send(in_port, most)
            case a.Port.TABLE:
                self.table(0, in_port)
            case a.Port.NORMAL:
                self._normal()
            case a.Port.ALL:
                self._flood(())
            case a.Port.FLOOD:
                self._flood(self.pipeline.no_flood)
            case port if port != in_port:
                self._send(port, most)

    def _send(self, port: int, most: int | None = None, *, flood: bool = False) -> None:
        if port in self.pipeline.ports:
            whole, tags = emit(self.parsed, self.key), len(tags_of(self.key))
            self.outcome.events.append(Sent(port, whole[:most], whole, tags, flood))

    def _flood(self, without: Collection[int]) -> None:
        for port in self.pipeline.ports:
            if port not in {self.key["in_port"], *without, *self.pipeline.reserved}:
                self._send(port, flood=True)

    def _normal(self) -> None:
        """Of trunks, with a MAC table that knows nothing of where the frame goes to."""
        saved, in_port = dict(self.key), self.key["in_port"]
        if not self.pipeline.normal:
            data, tags = emit(self.parsed, self.key), len(tags_of(self.key))
            self.outcome.events.append(Normal(in_port, data, tags))
            return
        if self.key["eth_dst"].to_bytes(6, "big") in _RESERVED:
            return
        if self.key["eth_type"] in TPIDS and not tags_of(self.key):
            return  # rule 58
        if in_port not in {*self.pipeline.ports, a.Port.NONE, a.Port.CONTROLLER}:
            return
        if len(tags_of(self.key)) == 1 and not self.key["vlan_tci"] & ~CFI:
            self.key["vlan_tci"] = 0  # rule 40
        self._flood(self.pipeline.no_flood)
        self.key = saved

    def _group(self, group: GroupDesc) -> None:
        for bucket in self._chosen(group):
            self._apart(executed(bucket.actions))
            self.exit = False

    def _chosen(self, group: GroupDesc) -> list[Bucket]:
        buckets = list(group.buckets)
        if group.type == GroupType.FAST_FAILOVER:
            return [b for b in buckets if self._live(b, count(1))][:1]
        if group.type == GroupType.SELECT:
            able = [b for b in buckets if b.weight]
            chosen = self.pipeline.bucket(group.group_id, self.choice)
            return able[chosen : chosen + 1]
        return buckets

    def _live(self, bucket: Bucket, depth: "count[int]") -> bool:
        watched, group = bucket.watch_port, bucket.watch_group
        if watched in self.pipeline.ports and watched not in self.pipeline.down:
            return True
        if group is not None and group in self.pipeline.groups and next(depth) < DEPTH:
            return any(self._live(b, depth) for b in self.pipeline.groups[group].buckets)
        return False


_CLEARING = (
    a.StripVlan,
    a.PushVlan,
    a.SetVlanVid,
    a.SetVlanPcp,
    a.SetEthSrc,
    a.SetEthDst,
    a.DecTtl,
)


def _ones(subfield: a.Subfield) -> int:
    return ((1 << subfield.bits) - 1) << subfield.offset

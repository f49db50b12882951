# SPDX-License-Identifier: Apache-2.0
"""Heliograph's model of flow tables beside the real one: the same messages to Open vSwitch.

Random messages in the versions that matter are encoded, sent to a bridge, and decoded again for
the model, as the agent will get them. After each, the error must be the same, and so must all
flows and groups. `run` raises DifferenceError, which has the seed and the messages that led there.

Left out is what the model decides otherwise (heliograph.flows.tables, checks and groups say what)
and what ends ovs-vswitchd 3.1: INSERT_BUCKET without buckets, deleting a group that a flow names
twice, and deleting a group in the bundle that adds flows to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tools.lab.openflow import Controller

from heliograph.flows.bundles import Bundles, CommitError
from heliograph.flows.queries import aggregate, flow_stats, group_descs
from heliograph.flows.tables import Tables
from heliograph.openflow import actions as a
from heliograph.openflow.codec import Frame, decode, encode, stream
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import (
    BUCKET_ALL,
    BUCKET_FIRST,
    BUCKET_LAST,
    AggregateReply,
    AggregateRequest,
    Bucket,
    FlowCommand,
    FlowFlags,
    FlowMod,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupCommand,
    GroupDesc,
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
    GroupType,
    Selection,
)
from heliograph.openflow.match import Masked, Match
from heliograph.openflow.message import Message
from heliograph.openflow.messages import (
    BundleAction,
    BundleAdd,
    BundleControl,
    BundleFlags,
    Version,
)

VERSIONS = (Version.V10, Version.V13, Version.V14, Version.V15)
_ALL_FLOWS = FlowMod(command=FlowCommand.DELETE, cookie=None)
_ALL_GROUPS = GroupMod(command=GroupCommand.DELETE, group_id=a.ALL_GROUPS)
Mod = FlowMod | GroupMod


class DifferenceError(AssertionError):
    pass


class Cases:
    """Few values of everything, so that messages meet."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def mod(self, version: Version) -> Mod:
        r = self.random.random()
        return self.group_mod() if r < 0.2 and version == Version.V15 else self.flow_mod(version)

    def bundle(self) -> list[Mod]:
        mods = [self.mod(Version.V15) for _ in range(self.random.randint(1, 6))]
        return [m for m in mods if m.command != GroupCommand.DELETE or isinstance(m, FlowMod)]

    def match(self) -> Match:
        random = self.random
        fields: dict[str, Masked] = {}
        if random.random() < 0.5:
            fields["in_port"] = random.randint(1, 2), 0xFFFF
        if random.random() < 0.2:
            fields["vlan_tci"] = random.choice([(0x1001, 0x1FFF), (0x1000, 0x1000), (0, 0x1FFF)])
        if random.random() < 0.2:
            fields["reg0"] = random.choice([(1, 3), (1, 0xFFFF_FFFF), (2, 2)])
        if random.random() < 0.6:
            fields["eth_type"] = random.choice([0x800, 0x800, 0x86DD, 0x806]), 0xFFFF
            if fields["eth_type"][0] == 0x800:
                self._ipv4(fields)
        return Match.of(fields)

    def _ipv4(self, fields: dict[str, Masked]) -> None:
        random = self.random
        if random.random() < 0.4:
            bits = random.choice([8, 24, 32])
            mask = 0xFFFF_FFFF << 32 - bits & 0xFFFF_FFFF
            fields["ip_dst"] = random.choice([0x0A000001, 0x0A000002, 0x0A010001]) & mask, mask
        if random.random() < 0.4:
            protocol = random.choice([6, 17])
            fields["nw_proto"] = protocol, 0xFF
            if random.random() < 0.5:
                fields["tcp_dst" if protocol == 6 else "udp_dst"] = random.choice([80, 81]), 0xFFFF

    def flow_mod(self, version: Version) -> FlowMod:
        random = self.random
        command = random.choice([FlowCommand.ADD] * 5 + list(FlowCommand))
        cookie: int | None = random.choice([0, 1, 0x11, 0x21, 2**64 - 1])
        cookie_value, cookie_mask = random.choice([(0, 0)] * 4 + [(1, 0xF), (0x11, 2**64 - 1)])
        if command == FlowCommand.ADD:
            cookie_value = cookie_mask = 0
        elif version != Version.V10:
            cookie = None
        flags = random.choice(
            [FlowFlags.NONE] * 4
            + [FlowFlags.CHECK_OVERLAP, FlowFlags.SEND_FLOW_REM, FlowFlags.RESET_COUNTS]
        )
        by_output = random.random() < 0.15
        match = self.match()
        actions = self.actions()
        if command != FlowCommand.MODIFY and random.random() < 0.2:
            actions = (self._shorthand(match), *actions)
        table_id = random.choice([0, 0, 0, 1, 2, 3, a.ALL_TABLES])
        if table_id == a.ALL_TABLES and version != Version.V10:
            actions = ()  # one fault at a time
        return FlowMod(
            command=command,
            match=match,
            table_id=table_id,
            priority=random.choice([1, 2, 2, 3]),
            cookie=cookie,
            cookie_value=cookie_value,
            cookie_mask=cookie_mask,
            idle_timeout=random.choice([0, 0, 600]),
            hard_timeout=random.choice([0, 0, 700]),
            importance=random.choice([0, 5]),
            out_port=random.choice([1, 2, a.Port.CONTROLLER]) if by_output else a.Port.NONE,
            out_group=random.choice([1, 2]) if random.random() < 0.05 else a.ANY_GROUP,
            flags=flags,
            actions=actions,
        )

    def request(self) -> AggregateRequest:
        mod = self.flow_mod(Version.V10)
        return AggregateRequest(
            match=mod.match,
            table_id=self.random.choice([0, 1, a.ALL_TABLES, a.ALL_TABLES]),
            out_port=mod.out_port,
            out_group=mod.out_group,
            cookie_value=mod.cookie_value,
            cookie_mask=mod.cookie_mask,
        )

    def _shorthand(self, match: Match) -> a.Action:
        """1.5 says them with what the match tells; Open vSwitch with that of the message."""
        tags: list[a.Action] = [a.SetVlanVid(7), a.SetVlanPcp(3)]
        ports: list[a.Action] = [a.SetTpDst(99)] if match.get("nw_proto") else []
        return self.random.choice([*tags, *ports])

    def actions(self, depth: int = 0) -> a.Actions:
        random = self.random
        chosen: list[a.Action] = []
        for _ in range(random.choice([0, 1, 1, 2, 3])):
            pool = _ACTIONS if random.random() < 0.8 else _DELICATE
            chosen.append(random.choice(pool))
        if random.random() < 0.15 and not depth:
            chosen.append(a.Clone(self.actions(1)))
        if random.random() < 0.1 and not any(isinstance(c, a.Clone) for c in chosen):
            chosen.append(a.Group(random.randint(1, 4)))
        if random.random() < 0.1 and not depth:
            chosen.append(a.GotoTable(random.choice([0, 1, 2, 3, 9])))
        return tuple(chosen)

    def group_mod(self) -> GroupMod:
        random = self.random
        command = random.choice([GroupCommand.ADD] * 3 + list(GroupCommand))
        group_id = random.randint(1, 5)
        kind = GroupType(group_id % 4)  # always, for buckets are checked with their group here
        insert = command == GroupCommand.INSERT_BUCKET
        wanted = BUCKET_ALL
        if insert or command == GroupCommand.REMOVE_BUCKET:
            wanted = random.choice([0, 1, 2, BUCKET_FIRST, BUCKET_LAST, BUCKET_ALL])
            group_id, kind = random.choice([(4, GroupType.ALL), (1, GroupType.SELECT)])
        counts = {GroupCommand.REMOVE_BUCKET: [0], GroupCommand.DELETE: [0, 0, 0, 1, 2]}
        count = random.choice(counts.get(command, [1, 1, 2, 3]))
        first = random.choice([0, 0, 0, 2, 3])
        buckets = tuple(self._bucket(kind, first + n) for n in range(count))
        return GroupMod(
            command=command,
            group_id=group_id,
            type=kind,
            command_bucket_id=wanted,
            buckets=buckets,
            selection=self._selection(),
        )

    def _selection(self) -> Selection:
        if self.random.random() < 0.9:
            return Selection()
        return self.random.choice(
            [
                Selection(method="hash", fields=(("ip_src", 0xFFFF_FFFF),)),
                Selection(method="dp_hash", param=1),
                Selection(method="luck"),
            ]
        )

    def _bucket(self, kind: GroupType, number: int) -> Bucket:
        random = self.random
        watch = kind == GroupType.FAST_FAILOVER or random.random() < 0.05
        chosen = [random.choice(_ACTIONS) for _ in range(random.randint(0, 2))]
        return Bucket(
            actions=tuple(chosen),
            bucket_id=number if random.random() < 0.95 else 1,
            weight=random.choice([1, 2, 50]) if kind == GroupType.SELECT else 0,
            watch_port=1 if watch and random.random() < 0.95 else None,
        )


_ACTIONS: Sequence[a.Action] = (
    a.Output(1),
    a.Output(2),
    a.Output(a.Port.NORMAL),
    a.Output(a.Port.IN_PORT),
    a.Output(1, 64),
    a.Controller(),
    a.Resubmit(None, 2),
    a.Resubmit(5, None),
    a.SetEthDst(0x0200_0000_0001),
    a.Load(a.Subfield("reg1", 0, 16), 9),
    a.Move(a.Subfield("reg1", 0, 16), a.Subfield("reg2", 16, 16)),
    a.SetField("metadata", 5, 0xFFFF_FFFF_FFFF_FFFF),
    a.Exit(),
)
_DELICATE: Sequence[a.Action] = (
    a.PushVlan(),
    a.StripVlan(),
    a.SetIpv4Src(0x0A000009),
    a.SetTos(8),
    a.DecTtl(),
    a.Output(0xFF00),
    a.Load(a.Subfield("ip_src", 0, 32), 1),
    a.Load(a.Subfield("tcp_dst", 0, 16), 1),
    a.SetField("vlan_vid", 0x1009, 0x1FFF),
)


class Pair:
    """A bridge of Open vSwitch, which is emptied, and the model."""

    def __init__(self, socket: Path) -> None:
        self.tables = Tables()
        self.sessions = {version: Controller(socket, version) for version in VERSIONS}
        self.last = self.sessions[Version.V15]
        for mod in (_ALL_FLOWS, _ALL_GROUPS):
            assert self.last.change(mod) == ""

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    def both(self, mod: Mod, version: Version, now: int) -> tuple[str, str]:
        """What Open vSwitch says of it and what the model says; "" where it is done."""
        theirs = self.sessions[version].change(mod)
        return theirs, _code(lambda: self.tables.change(_received(mod, version), now, version))

    def bundle(self, mods: Sequence[Mod], now: int) -> tuple[str, str]:
        """The errors of the message at fault, or "" twice."""
        flags = BundleFlags.ATOMIC | BundleFlags.ORDERED
        bundles = Bundles(Version.V15)

        def control(action: BundleAction) -> tuple[str, str]:
            request = BundleControl(1, action, flags)
            theirs = self.last.control(request)
            return theirs, _code(lambda: bundles.control(request, self.tables, now))

        control(BundleAction.OPEN_REQUEST)
        for mod in mods:
            theirs = self.last.bundle_add(1, flags, mod)
            ours = _code(partial(_add, bundles, mod, flags))
            if theirs or ours:
                control(BundleAction.DISCARD_REQUEST)
                return theirs, ours
        return control(BundleAction.COMMIT_REQUEST)

    def dumps(self, now: int) -> tuple[list[Any], list[Any]]:
        """All flows and groups, theirs and ours, as 1.5 says them."""
        flows = _through(flow_stats(self.tables, FlowStatsRequest(), now))
        groups = _through(group_descs(self.tables, GroupDescRequest()))
        return (
            [*_comparable(self.last.flows()), *_sorted(self.last.groups())],
            [*_comparable(flows), *_sorted(groups)],
        )

    def sums(self, request: AggregateRequest) -> tuple[int, int]:
        """How many flows there are of this kind, theirs and ours."""
        (reply,) = self.last.send(request)
        assert isinstance(reply, AggregateReply)
        return reply.flows, aggregate(self.tables, request).flows


def _received(mod: Mod, version: Version) -> Mod:
    data = encode(mod, version)
    received = decode(Frame(version, data[1], 0, data), table_ids=version == Version.V10)
    assert isinstance(received, FlowMod | GroupMod)
    return received


def _add(bundles: Bundles, mod: Mod, flags: BundleFlags) -> None:
    bundles.add(BundleAdd(1, flags, _received(mod, Version.V15), 0))


def _code(call: Callable[[], object]) -> str:
    """The error that it raises; that of the message at fault, if it is one of a bundle."""
    try:
        call()
    except CommitError as failed:
        return failed.error.code.name
    except OpenFlowError as error:
        return error.code.name
    return ""


def _through(reply: Message) -> list[Any]:
    """The entries, to bytes and back."""
    entries: list[Any] = []
    for data in stream(reply, Version.V15):
        part = decode(Frame(Version.V15, data[1], 0, data))
        assert isinstance(part, FlowStatsReply | GroupDescReply)
        entries += part.entries
    return entries


def _comparable(flows: Iterable[FlowStats]) -> list[FlowStats]:
    """Without what changes by itself."""
    plain = [
        replace(f, duration_ns=0, idle_age=None, hard_age=None, packets=0, bytes=0) for f in flows
    ]
    return sorted(plain, key=lambda f: (f.table_id, f.priority, f.match.fields))


def _sorted(groups: Iterable[GroupDesc]) -> list[GroupDesc]:
    return sorted(groups, key=lambda group: group.group_id)


def run(socket: Path, seed: int, count: int) -> Counter[str]:
    """So many messages or bundles; returns how often each error was the outcome ("": done)."""
    cases = Cases(Random(seed))
    pair = Pair(socket)
    outcomes: Counter[str] = Counter()
    try:
        for n in range(count):
            version = cases.random.choice(VERSIONS)
            many = cases.random.random() < 0.1
            mods = cases.bundle() if many else [cases.mod(version)]
            place = f"seed {seed}, message {n}: {'bundle' if many else repr(version)} {mods}"
            try:
                theirs, ours = pair.bundle(mods, n) if many else pair.both(mods[0], version, n)
            except OSError as error:
                raise DifferenceError(f"{place}\nOpen vSwitch is gone: {error}") from error
            if theirs != ours:
                raise DifferenceError(f"{place}\ntheirs: {theirs or 'ok'}, ours: {ours or 'ok'}")
            outcomes[ours] += 1
            there, here = pair.dumps(n)
            if there != here:
                only = [f for f in there if f not in here]
                more = [f for f in here if f not in there]
                raise DifferenceError(f"{place}\nonly there: {only}\nonly here: {more}")
            wanted = cases.request()
            sums = pair.sums(wanted)
            if sums[0] != sums[1]:
                raise DifferenceError(f"{place}, then {wanted}\ntheirs: {sums[0]}, ours: {sums[1]}")
    finally:
        pair.close()
    return outcomes

# SPDX-License-Identifier: Apache-2.0
"""Random matches, actions and messages that the version they are for can say."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from heliograph.openflow import actions as a
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS, PREREQUISITES
from heliograph.openflow.match import Match

VERSIONS = 1, 4, 5, 6
U8, U16, U32, U64, U48 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64, 48))
PORTS = st.one_of(
    st.integers(1, a.Port.MAX - 1),
    st.sampled_from([a.Port.IN_PORT, a.Port.NORMAL, a.Port.FLOOD, a.Port.ALL, a.Port.LOCAL]),
)
DATA = st.binary(max_size=40)
_COMPOSED = ("xreg", "xxreg", "nw_tos", "vlan_vid", "vlan_pcp", "in_port_oxm")
# Their prerequisites depend on more than one field says.
_TANGLED = "ct_", "packet_type", "actset_output", "icmpv6_code"
_MATCHED = [name for name in FIELDS if not name.startswith((*_COMPOSED, *_TANGLED))]


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """Any fields, with what they need; never two protocols at once."""
    fields: dict[str, tuple[int, int]] = {}
    for name in draw(st.lists(st.sampled_from(_MATCHED), max_size=6, unique=True)):
        field = FIELDS[name]
        needed = dict(PREREQUISITES.get(field.prerequisite, ()))
        if any(n in fields and fields[n][0] not in values for n, values in needed.items()):
            continue
        if name in fields:
            continue
        for other, values in needed.items():
            fields.setdefault(other, (values[0], FIELDS[other].value_bits))
        ones = field.value_bits
        mask = draw(st.integers(1, ones)) if field.maskable and draw(st.booleans()) else ones
        value = draw(st.integers(0, ones))
        if name == "in_port":
            value = draw(PORTS)
        if name == "arp_op":
            value &= 0xFF
        if name == "ip_frag":
            value &= 1
        if name == "vlan_tci" and not value & mask:
            mask = 0x1000  # what has no tag has no priority, and later versions do not ask for it
        fields[name] = value, mask
    return Match.of(fields)


def subfields(writable: bool, most: int = 64) -> st.SearchStrategy[a.Subfield]:
    names = [n for n, field in FIELDS.items() if field.writable or not writable]

    @st.composite
    def build(draw: st.DrawFn) -> a.Subfield:
        field = FIELDS[draw(st.sampled_from(names))]
        bits = draw(st.integers(1, min(field.bits, most)))
        return a.Subfield(field.name, draw(st.integers(0, field.bits - bits)), bits)

    return build()


@st.composite
def set_fields(draw: st.DrawFn) -> a.SetField:
    field = FIELDS[draw(st.sampled_from([n for n, field in FIELDS.items() if field.writable]))]
    ones = field.value_bits
    mask = draw(st.just(ones) | st.integers(1, ones))
    value = draw(st.integers(0, ones))
    if field.name == "vlan_vid":
        value, mask = value | 0x1000, mask | 0x1000
    if value & field.impossible:
        value = 0
    return a.SetField(field.name, value & mask, mask)


@st.composite
def loads(draw: st.DrawFn) -> a.Load:
    target = draw(subfields(writable=True).filter(lambda s: not s.field.startswith("tun_erspan")))
    return a.Load(target, draw(st.integers(0, (1 << target.bits) - 1)))


@st.composite
def moves(draw: st.DrawFn) -> a.Move:
    source, target = draw(subfields(writable=False)), draw(subfields(writable=True))
    bits = min(source.bits, target.bits)
    return a.Move(
        a.Subfield(source.field, source.offset, bits), a.Subfield(target.field, target.offset, bits)
    )


CONTROLLERS = st.one_of(
    st.builds(a.Controller, max_len=U16),
    st.builds(a.Controller, max_len=U16, controller_id=U16.filter(bool), reason=U8),
    st.builds(
        a.Controller,
        max_len=U16,
        controller_id=U16,
        reason=U8,
        userdata=st.none() | DATA,
        pause=st.booleans(),
        meter_id=st.none() | U32,
        extended=st.just(True),
    ),
)
ANYWHERE = st.one_of(
    st.builds(a.Output, PORTS),
    st.builds(a.Output, st.integers(1, 0xFEFF), st.integers(14, 0xFFFF_FFFF)),
    CONTROLLERS,
    st.builds(a.Group, U32),
    st.builds(a.Resubmit, st.none() | st.integers(1, 0xFEFF), st.none() | st.integers(0, 254)),
    st.builds(a.Resubmit, st.none(), st.integers(0, 254), st.just(True)),
    moves(),
    st.just(a.StripVlan()),
    st.just(a.DecTtl()),
    st.builds(a.DecTtl, st.lists(U16, min_size=1, max_size=5).map(tuple), st.just(True)),
    st.builds(a.SetTunnel, U32),
    st.builds(a.SetTunnel, U64, st.just(True)),
    st.builds(
        a.Note, st.sampled_from([6, 14, 22]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
    ),
    st.just(a.Exit()),
)
_ONLY10 = st.one_of(
    loads(),
    st.builds(a.SetVlanVid, st.integers(0, 4095)),
    st.builds(a.SetVlanPcp, st.integers(0, 7)),
    st.builds(a.SetEthSrc, U48),
    st.builds(a.SetEthDst, U48),
    st.builds(a.SetIpv4Src, U32),
    st.builds(a.SetIpv4Dst, U32),
    st.builds(a.SetTos, st.integers(0, 63).map(lambda n: n << 2)),
    st.builds(a.SetTpSrc, U16),
    st.builds(a.SetTpDst, U16),
)
_FROM13 = st.one_of(
    st.builds(a.PushVlan, st.sampled_from([0x8100, 0x88A8])), st.builds(a.SetTtl, U8)
)


def _is_said_in_10(action: a.SetField) -> bool:
    """A field set whole is said in another way there."""
    field = FIELDS[action.field]
    return action.mask != field.value_bits or field.bits > 64


def _simple(version: int) -> st.SearchStrategy[Any]:
    if version == 1:
        return ANYWHERE | _ONLY10 | set_fields().filter(_is_said_in_10)
    if version < 6:
        return ANYWHERE | _FROM13 | loads() | set_fields()
    return ANYWHERE | _FROM13 | set_fields()


def action_lists(version: int) -> st.SearchStrategy[a.Actions]:
    simple = _simple(version)
    nested = st.lists(simple, max_size=3).map(tuple)
    return st.lists(simple | st.builds(a.Clone, nested), max_size=5).map(tuple)


METADATA = st.builds(a.WriteMetadata, U64, U64)


@st.composite
def flow_actions(draw: st.DrawFn, version: int) -> a.Actions:
    actions = list(draw(action_lists(version)))
    if version == 1:
        return tuple(actions + draw(st.lists(METADATA, max_size=1)))
    if version < 6 and draw(st.booleans()):
        actions.insert(0, a.Meter(draw(st.integers(1, 0xFFFF_0000))))
    if draw(st.booleans()):
        actions.append(a.ClearActions())
    if draw(st.booleans()):
        kept = st.lists(set_fields() | st.builds(a.Group, U32), max_size=3)
        actions.append(a.WriteActions(tuple(draw(kept))))
    actions += draw(st.lists(METADATA, max_size=1))
    if draw(st.booleans()):
        actions.append(a.GotoTable(draw(st.integers(101, 254))))
    return tuple(actions)


@st.composite
def flow_mods(draw: st.DrawFn, version: int) -> f.FlowMod:
    command = draw(st.sampled_from(f.FlowCommand))
    add = command == f.FlowCommand.ADD
    mask = 0 if add else draw(U64)
    flags = f.FlowFlags(draw(st.integers(0, 31)))
    if version == 1:
        flags = flags & 3 | (f.FlowFlags.RESET_COUNTS if add else f.FlowFlags.NONE)
    cookie = draw(st.integers(0, (1 << 64) - 2)) if add or version == 1 else None
    return f.FlowMod(
        command=command,
        match=draw(matches()),
        table_id=a.ALL_TABLES if version == 1 else draw(st.integers(0, 100)),
        priority=draw(U16),
        cookie=cookie,
        cookie_value=draw(U64) & mask,
        cookie_mask=mask,
        idle_timeout=draw(U16),
        hard_timeout=draw(U16),
        importance=draw(U16) if version >= 5 else 0,
        buffer_id=draw(st.none() | st.integers(0, 0xFFFF_FFFE)),
        out_port=draw(PORTS | st.just(a.Port.NONE)),
        out_group=a.ANY_GROUP if version == 1 else draw(U32),
        flags=flags,
        actions=draw(flow_actions(version)),
    )


@st.composite
def flow_stats(draw: st.DrawFn, version: int, *, nicira: bool = False) -> f.FlowStats:
    return f.FlowStats(
        match=draw(matches() if nicira or version > 1 else st.just(Match())),
        actions=draw(flow_actions(version)),
        table_id=draw(U8),
        priority=draw(U16),
        cookie=draw(U64),
        duration_ns=draw(st.integers(0, 10**18)),
        idle_timeout=draw(U16),
        hard_timeout=draw(U16),
        idle_age=draw(st.none() | st.integers(0, 0xFFFE)) if nicira or version == 6 else None,
        hard_age=draw(st.none() | st.integers(0, 0xFFFE)) if nicira else None,
        importance=draw(U16) if version >= 5 else 0,
        flags=f.FlowFlags(draw(st.integers(0, 31))) if version > 1 else f.FlowFlags.NONE,
        packets=draw(U64),
        bytes=draw(U64),
    )


def flow_requests(version: int, make: Callable[..., Any]) -> st.SearchStrategy[Any]:
    if version == 1:
        plain = st.builds(make, table_id=U8, out_port=PORTS)
        cookies = {"cookie_value": st.just(5), "cookie_mask": st.just(7)}
        return plain | st.builds(
            make, match=matches(), table_id=U8, out_port=PORTS, nicira=st.just(True), **cookies
        )
    return st.builds(make, match=matches(), table_id=U8, out_port=PORTS, out_group=U32)


@st.composite
def group_mods(draw: st.DrawFn, version: int) -> f.GroupMod:
    new = version in {1, 6}
    commands = set(f.GroupCommand)
    if not new:
        commands -= {f.GroupCommand.INSERT_BUCKET, f.GroupCommand.REMOVE_BUCKET}
    kind = draw(st.sampled_from(f.GroupType))
    command = draw(st.sampled_from(sorted(commands)))
    selects = kind == f.GroupType.SELECT and command in {
        f.GroupCommand.ADD,
        f.GroupCommand.MODIFY,
        f.GroupCommand.ADD_OR_MODIFY,
    }
    number = f.BUCKET_ALL
    if command in {f.GroupCommand.INSERT_BUCKET, f.GroupCommand.REMOVE_BUCKET}:
        number = draw(st.integers(0, 0xFFFF_FF00) | st.just(f.BUCKET_LAST))
    count = 1 if kind == f.GroupType.INDIRECT else draw(st.integers(0, 3))
    if command in {f.GroupCommand.REMOVE_BUCKET, f.GroupCommand.DELETE}:
        count, kind, selects = 0, f.GroupType.ALL, False
    return f.GroupMod(
        command=command,
        group_id=draw(st.integers(0, 0xFFFF_FF00)),
        type=kind,
        command_bucket_id=number,
        buckets=tuple(draw(buckets(version, kind, n)) for n in range(count)),
        selection=draw(selections()) if new and selects else f.Selection(),
    )


@st.composite
def buckets(draw: st.DrawFn, version: int, kind: f.GroupType, n: int) -> f.Bucket:
    new = version in {1, 6}
    watches = kind in {f.GroupType.SELECT, f.GroupType.FAST_FAILOVER}
    weight = draw(U16) if kind == f.GroupType.SELECT else 0
    return f.Bucket(
        actions=draw(action_lists(version)),
        bucket_id=n << 8 | draw(U8) if new else None,
        weight=weight,
        watch_port=draw(st.integers(1, 0xFEFF)) if watches else None,
        watch_group=draw(st.none() | st.integers(0, 0xFFFF_FF00)) if watches else None,
    )


def selections() -> st.SearchStrategy[f.Selection]:
    chosen = st.sampled_from(["ip_src", "tcp_dst", "eth_dst"])
    fields = st.dictionaries(chosen, U16.filter(bool), max_size=2).map(lambda d: tuple(d.items()))
    return st.one_of(
        st.just(f.Selection()),
        st.builds(f.Selection, method=st.just("dp_hash"), param=U64),
        st.builds(f.Selection, method=st.just("hash"), param=U64, fields=fields),
    )


def failures() -> st.SearchStrategy[OpenFlowError]:
    return st.sampled_from(Code).map(OpenFlowError)


PORT_DESCS = st.builds(
    m.PortDesc,
    number=PORTS,
    name=st.text("abcdef-0123", max_size=15),
    address=U48,
    config=st.sampled_from([0, 1, 4, 32, 64, 101]).map(m.PortConfig),
    state=st.integers(0, 1).map(m.PortState),
    current=st.sampled_from([0, 0x7F, 0x2820]).map(m.PortFeatures),
    advertised=st.just(m.PortFeatures.AUTONEG),
)

# SPDX-License-Identifier: Apache-2.0
"""Whether a flow may be: prerequisites, and what the data plane will carry out.

The decoder has refused what no message may say. Here is what needs the whole flow: actions are
gone through with what is known of the packet at each, as Open vSwitch does it. From 1.3 on an
action that changes a header no matched packet need have is an error; in 1.0 it does nothing to
packets without. set_field, load and move insist in every version.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from heliograph.flows.compile_actions import Origin, compile_actions, depends_on_match
from heliograph.flows.compile_match import compile_match
from heliograph.flows.flow import TABLES
from heliograph.openflow import actions as a
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS, prerequisites_met
from heliograph.openflow.flows import FlowCommand, FlowMod, PacketOut
from heliograph.openflow.match import Masked, Match
from heliograph.openflow.messages import Version

_CFI = 0x1000
_VENDOR = b"\xff\xff"
_LATER_FRAGMENT = 2
_MOST_TAGS = 2
_SHORTEST_FRAME = 14
# Neither matched nor written: the data plane's key has no place for them.
UNKNOWN_FIELDS = frozenset(
    name
    for name in FIELDS
    if name.startswith(("ct_", "tun_", "mpls_"))
    or name in {"conj_id", "dp_hash", "recirc_id", "pkt_mark", "actset_output", "packet_type"}
)
# Prerequisites ask for values of these only.
_TELLING = frozenset(
    {"eth_type", "ip_frag", "nw_proto", "vlan_tci", "icmpv6_type", "icmpv6_code", "ct_state"}
)
Fields = tuple[tuple[str, int, int], ...]
_IN_ACTION_SETS = (
    a.Output,
    a.Controller,
    a.Group,
    a.Resubmit,
    a.SetField,
    a.Load,
    a.Move,
    a.PushVlan,
    a.StripVlan,
    a.SetVlanVid,
    a.SetVlanPcp,
    a.SetEthSrc,
    a.SetEthDst,
    a.SetIpv4Src,
    a.SetIpv4Dst,
    a.SetTos,
    a.SetTtl,
    a.SetTpSrc,
    a.SetTpDst,
    a.DecTtl,
)


def check_flow_mod(mod: FlowMod, version: int) -> None:
    """What can be said of it whatever flows there are; nothing of a group that it names."""
    deletes = mod.command in {FlowCommand.DELETE, FlowCommand.DELETE_STRICT}
    if mod.table_id == a.ALL_TABLES and not deletes and version != Version.V10:
        raise OpenFlowError(
            Code.OFPFMFC_BAD_TABLE_ID, f"{mod.command.name} needs the number of a table"
        )
    names, told = _outline(mod.match)
    _check_outline(names, told, mod.actions, mod.table_id, version == Version.V10)
    check_table(mod.table_id)
    if mod.buffer_id is not None and not deletes:
        raise OpenFlowError(Code.OFPBRC_BUFFER_UNKNOWN, f"no buffer {mod.buffer_id:#x}")


def _outline(match: Match) -> tuple[tuple[str, ...], Fields]:
    """Which fields there are, and those whose values tell of what kind packets are."""
    mask, _values = match.split()
    names = tuple([name for name, _bits in mask])
    return names, tuple([field for field in match.fields if field[0] in _TELLING])


@lru_cache(maxsize=4096)
def _check_outline(
    names: tuple[str, ...], told: Fields, actions: a.Actions, table_id: int, lenient: bool
) -> None:
    """Once for all flows that are alike in what counts here."""
    fields = {name: (value, mask) for name, value, mask in told}
    _check_names(names, fields)
    walk = _Walk(fields, table_id, lenient=lenient)
    walk.check(actions)
    if walk.inconsistent:
        raise OpenFlowError(Code.OFPBAC_MATCH_INCONSISTENT, walk.inconsistent)


def check_table(table_id: int) -> None:
    if table_id >= TABLES and table_id != a.ALL_TABLES:
        raise OpenFlowError(
            Code.OFPBRC_BAD_TABLE_ID, f"table {table_id}; there are 0 to {TABLES - 1}"
        )


def _check_names(names: Iterable[str], fields: Mapping[str, Masked]) -> None:
    for name in names:
        if name in UNKNOWN_FIELDS:
            raise OpenFlowError(Code.OFPBMC_BAD_FIELD, f"the switch does not match {name}")
        field = FIELDS[name]
        if field.prerequisite and not prerequisites_met(field, fields):
            raise OpenFlowError(Code.OFPBMC_BAD_PREREQ, f"{name} without {field.prerequisite}")


def check_possible(match: Match, actions: a.Actions) -> None:
    """Whether the data plane can have the flow: also one that another hides, for now."""
    compile_match(match)
    if depends_on_match(actions):
        compile_actions(actions, match)
    else:
        _check_compiles(actions)


@lru_cache(maxsize=1024)
def _check_compiles(actions: a.Actions) -> None:
    compile_actions(actions)


def check_unmatched(actions: a.Actions) -> None:
    """Of a bucket or a packet-out: no match tells of the packet, so no prerequisite is missing."""
    for action in actions:
        if isinstance(action, a.Meter | a.ClearActions | a.WriteActions | a.GotoTable):
            raise OpenFlowError(Code.OFPBAC_BAD_TYPE, f"{type(action).__name__} outside of a flow")
    _Walk(None, a.ALL_TABLES, lenient=True).check(actions)


def check_packet_out(packet: PacketOut) -> None:
    """What can be said of it whatever groups there are."""
    if packet.buffer_id is not None:
        raise OpenFlowError(Code.OFPBRC_BUFFER_UNKNOWN, f"no buffer {packet.buffer_id:#x}")
    if len(packet.data) < _SHORTEST_FRAME:
        raise OpenFlowError(Code.OFPBRC_BAD_PACKET, f"a frame of {len(packet.data)} bytes")
    check_unmatched(packet.steps)
    compile_actions(packet.steps, origin=Origin.PACKET_OUT)


class _Walk:
    """`fields` is None where nothing is known of the packet, and no prerequisite asked for."""

    def __init__(
        self, fields: Mapping[str, Masked] | None, table_id: int, *, lenient: bool
    ) -> None:
        self.fields, self.table_id, self.lenient = fields, table_id, lenient
        self.inconsistent = ""  # raised last: any other error comes first
        tci = (fields or {}).get("vlan_tci", (0, 0))[0]
        self.tags = [bool(tci & _CFI), False]

    def check(self, actions: a.Actions) -> None:
        tags = list(self.tags)
        for action in actions:
            self._one(action)
        self.tags = tags

    def _one(self, action: a.Action) -> None:
        match action:
            case a.Output(port):
                _check_port(port)
            case a.SetField() | a.Load() | a.Move():
                self._written(action)
            case a.PushVlan() | a.StripVlan() | a.SetVlanVid() | a.SetVlanPcp():
                self._tag(action)
            case a.GotoTable(table_id):
                self._goto(table_id)
            case a.Clone(nested):
                self.check(nested)
            case a.WriteActions(nested):
                self._action_set(nested)
            case _:
                self._header(action)
                _refuse(action)

    def _header(self, action: a.Action) -> None:
        match action:
            case a.SetIpv4Src() | a.SetIpv4Dst():
                self._want({0x0800}, "IPv4", action)
            case a.SetTos() | a.DecTtl() | a.SetTtl():
                self._want({0x0800, 0x86DD}, "IP", action)
            case a.SetTpSrc() | a.SetTpDst():
                self._want({0x0800, 0x86DD}, "IP", action)
                self._want_ports(action)

    def _written(self, action: a.SetField | a.Load | a.Move) -> None:
        match action:
            case a.SetField("vlan_tci", value):
                self.tags[0] = bool(value & _CFI)
            case a.Load(a.Subfield("vlan_tci", offset), value):
                self.tags[0] = bool(value << offset & _CFI)
            case a.SetField(name):
                self._check_field(name)
            case a.Load(target):
                self._check_field(target.field)
            case a.Move(source, target):
                self._check_field(source.field)
                self._check_field(target.field)

    def _check_field(self, name: str) -> None:
        if name in UNKNOWN_FIELDS:
            raise OpenFlowError(Code.OFPBAC_BAD_SET_TYPE, f"the switch does not know {name}")
        if self.fields is None:
            return
        field = FIELDS[name]
        if name in {"vlan_vid", "vlan_pcp"}:
            there = self.tags[0]
        else:
            there = not field.prerequisite or prerequisites_met(field, self.fields)
        if not there:
            raise OpenFlowError(
                Code.OFPBAC_MATCH_INCONSISTENT, f"{name}, which a packet matched need not have"
            )

    def _tag(self, action: a.Action) -> None:
        match action:
            case a.PushVlan():
                if self.tags[_MOST_TAGS - 1]:
                    raise OpenFlowError(Code.OFPBAC_BAD_TAG, f"more than {_MOST_TAGS} VLAN tags")
                self.tags = [True, self.tags[0]]
            case a.StripVlan():
                if not self.tags[0]:
                    self._inconsistent("a VLAN tag", action)
                self.tags = [self.tags[1], False]
            case _:
                self.tags[0] = True

    def _want(self, types: set[int], what: str, action: a.Action) -> None:
        if self._value("eth_type") not in types:
            self._inconsistent(what, action)

    def _want_ports(self, action: a.Action) -> None:
        later = self._value("ip_frag") & _LATER_FRAGMENT
        if self._value("nw_proto") not in {6, 17, 132} or later:
            self._inconsistent("TCP, UDP or SCTP", action)

    def _value(self, name: str) -> int:
        return (self.fields or {}).get(name, (0, 0))[0]

    def _inconsistent(self, what: str, action: a.Action) -> None:
        if not self.lenient:
            self.inconsistent = f"{type(action).__name__} where the match does not ask for {what}"

    def _goto(self, table_id: int) -> None:
        own = self.table_id
        if table_id >= TABLES or (own != a.ALL_TABLES and table_id <= own):
            raise OpenFlowError(
                Code.OFPBIC_BAD_TABLE_ID, f"goto_table:{table_id} from table {own} of {TABLES}"
            )

    def _action_set(self, actions: a.Actions) -> None:
        for action in actions:
            if not isinstance(action, (*_IN_ACTION_SETS, a.Unsupported)):
                raise OpenFlowError(
                    Code.OFPBAC_BAD_TYPE, f"{type(action).__name__} in an action set"
                )
        # What a packet will be when the set is carried out is not known.
        lenient, self.lenient = self.lenient, True
        self.check(actions)
        self.lenient = lenient


def _check_port(port: int) -> None:
    if port >= a.Port.MAX and port not in _RESERVED:
        raise OpenFlowError(Code.OFPBAC_BAD_OUT_PORT, f"no port can be {port:#x}")


_RESERVED = frozenset(a.Port) - {a.Port.MAX, a.Port.UNSET, a.Port.NONE}
_NO_METERS = Code.OFPMMFC_INVALID_METER


def _refuse(action: a.Action) -> None:
    """What can be said but will not be done."""
    match action:
        case a.Unsupported(name, data):
            vendor = data[:2] == _VENDOR
            code = Code.OFPBAC_BAD_VENDOR_TYPE if vendor else Code.OFPBAC_BAD_TYPE
            raise OpenFlowError(code, f"the switch has no action {name}")
        case a.Meter(meter_id):
            raise OpenFlowError(_NO_METERS, f"meter:{meter_id}, but there are no meters")
        case a.Controller(meter_id=int()):
            raise OpenFlowError(_NO_METERS, "controller(meter_id), but there are no meters")
        case a.Controller(pause=True):
            raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, "controller(pause) is not supported")
        case a.Resubmit(ct=True):
            raise OpenFlowError(Code.OFPBAC_BAD_VENDOR_TYPE, "resubmit(ct): nothing is tracked")
        case a.SetTunnel():
            raise OpenFlowError(Code.OFPBAC_BAD_VENDOR_TYPE, "set_tunnel is not supported")

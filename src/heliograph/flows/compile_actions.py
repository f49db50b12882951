# SPDX-License-Identifier: Apache-2.0
"""Actions as ops of the data plane (bpf/flow_types.h).

What the data plane will not do is refused here, with the error that says so. An op that changes
what the frame has says what it needs of it, since a bucket, a packet-out or a flow of OpenFlow 1.0
may meet a frame without; it clears the set of mirrors that are done as rules 28 and 29 say. Groups
are named by their ids, which the store replaces by their cells.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from heliograph.flows.compile_fields import PIECES, PIPELINE, implies, need_of, transport
from heliograph.flows.flow import TABLES
from heliograph.kernel.layouts import FlowLimits, KeyWord, Op, OpCode, OpFlags, OpNeed
from heliograph.openflow import actions as a
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.flows import PacketInReason
from heliograph.openflow.match import Match

_SCTP = 132
_TAG = 0x1000  # of a TCI in the key: it is there
_CLEARS = OpFlags.OP_CLEARS
_WHOLE = 0xFFFF  # bytes
# Headers that the data plane reads, and does not write.
_ONLY_READ = frozenset({"nd_target", "nd_sll", "nd_tll", "sctp_src", "sctp_dst"})
_WITH_PORTS = frozenset({OpNeed.NEED_TCP, OpNeed.NEED_UDP})
_TAG_FIELDS: Mapping[str, int] = {"vlan_tci": 0, "vlan_vid": 0, "vlan_pcp": 13}


class Origin(Enum):
    """Where actions stand; a frame for controllers says so."""

    FLOW = PacketInReason.ACTION
    BUCKET = PacketInReason.GROUP
    PACKET_OUT = PacketInReason.PACKET_OUT


class Program(NamedTuple):
    """`tells`: which controllers an op tells of the frame, by its place in `ops`."""

    ops: tuple[Op, ...]
    tells: Mapping[int, tuple[a.Controller, ...]]

    def groups(self) -> frozenset[int]:
        return frozenset(op.a for op in self.ops if op.code == OpCode.OP_GROUP)


def op(code: OpCode, **fields: int) -> Op:
    empty = Op(code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return empty._replace(**fields)


def compile_actions(
    actions: a.Actions, match: Match | None = None, origin: Origin = Origin.FLOW
) -> Program:
    """`match`: of the flow they are of. Raises OpenFlowError."""
    compiler = _Compiler(match, origin)
    compiler.list(actions, depth=1 if origin is Origin.BUCKET else 0, last=True)
    if len(compiler.ops) > FlowLimits.FLOW_BUDGET:
        raise OpenFlowError(
            Code.OFPBAC_TOO_MANY,
            f"{len(compiler.ops)} steps; a frame may take {FlowLimits.FLOW_BUDGET} in all",
        )
    return Program(tuple(compiler.ops), compiler.tells)


def depends_on_match(actions: a.Actions) -> bool:
    """Whether the ops may be other ones, or refused, for flows with other matches."""
    return any(type(action) in _DEPENDENT for action in actions)


_DEPENDENT = frozenset({a.DecTtl, a.Move, a.SetTpSrc, a.SetTpDst, a.Clone})
_WRITES: Mapping[type, str] = {
    a.SetEthSrc: "eth_src",
    a.SetEthDst: "eth_dst",
    a.SetIpv4Src: "ip_src",
    a.SetIpv4Dst: "ip_dst",
    a.SetTos: "nw_tos",
    a.SetTtl: "nw_ttl",
}
_PLAIN: Mapping[int, OpCode] = {
    a.Port.NORMAL: OpCode.OP_NORMAL,
    a.Port.FLOOD: OpCode.OP_FLOOD,
    a.Port.ALL: OpCode.OP_ALL,
}


class _Compiler:
    def __init__(self, match: Match | None, origin: Origin) -> None:
        self.match, self.origin = match, origin
        self.is_ip, self.protocol = transport(match)
        self.ops: list[Op] = []
        self.tells: dict[int, tuple[a.Controller, ...]] = {}

    def list(self, actions: a.Actions, depth: int, *, last: bool = False) -> None:
        """`last`: nothing comes after them."""
        for n, action in enumerate(actions):
            if isinstance(action, a.Clone):
                self._clone(action.actions, depth)
            elif isinstance(action, a.Output):
                self._output(action, ends=last and n == len(actions) - 1)
            else:
                self._one(action)

    def _one(self, action: a.Action) -> None:
        match action:
            case a.Controller():
                self._controller(action)
            case a.Group(group_id):
                self._add(OpCode.OP_GROUP, a=group_id)
            case a.Resubmit():
                self._resubmit(action)
            case a.GotoTable(table_id):
                self._add(OpCode.OP_GOTO, b=table_id)
            case a.Exit():
                self._add(OpCode.OP_EXIT)
            case a.SetField(field, value, mask):
                self._write(field, value, mask)
            case a.Load(target, value):
                ones = (1 << target.bits) - 1 << target.offset
                self._write(target.field, value << target.offset, ones)
            case a.Move(source, target):
                self._move(source, target)
            case a.WriteMetadata(value, mask):
                self._write("metadata", value & mask, mask)
            case a.Note() | a.ClearActions() | a.WriteActions(()):
                pass  # with no action set, it is always empty
            case _:
                self._header(action)

    def _header(self, action: a.Action) -> None:
        match action:
            case a.PushVlan(ethertype):
                self._add(OpCode.OP_PUSH_VLAN, flags=_CLEARS, a=ethertype)
            case a.StripVlan():
                self._add(OpCode.OP_POP_VLAN, flags=_CLEARS)
            case a.SetVlanVid(vid):
                self._tci(_TAG | vid, 0x1FFF)
            case a.SetVlanPcp(pcp):
                self._tci(_TAG | pcp << 13, 0xF000)
            case a.SetTpSrc(port):
                self._port("tcp_src", port)
            case a.SetTpDst(port):
                self._port("tcp_dst", port)
            case a.DecTtl():
                self._dec_ttl(action)
            case a.SetEthSrc(value) | a.SetEthDst(value) | a.SetIpv4Src(value):
                self._write(_WRITES[type(action)], value)
            case a.SetIpv4Dst(value) | a.SetTos(value) | a.SetTtl(value):
                self._write(_WRITES[type(action)], value)
            case _:
                _refuse(action)

    def _add(self, code: OpCode, **fields: int) -> None:
        self.ops.append(op(code, **fields))

    def _clone(self, actions: a.Actions, depth: int) -> None:
        if depth >= FlowLimits.MAX_SAVES:
            raise OpenFlowError(
                Code.OFPBAC_TOO_MANY, f"more than {FlowLimits.MAX_SAVES} clones in one another"
            )
        place = len(self.ops)
        self._add(OpCode.OP_CLONE)
        self.list(actions, depth + 1)
        self.ops[place] = self.ops[place]._replace(a=len(self.ops) - place - 1)

    def _output(self, action: a.Output, *, ends: bool) -> None:
        port, limit = action.port, action.max_len or 0
        if port in _PLAIN:
            self._add(_PLAIN[port])
        elif port == a.Port.IN_PORT:
            self._add(OpCode.OP_IN_PORT, b=limit)
        elif port == a.Port.TABLE and ends and self.origin is Origin.PACKET_OUT:
            self._add(OpCode.OP_GOTO)  # where none of its flows matches, that is a miss
        elif port == a.Port.TABLE:
            self._add(OpCode.OP_RESUBMIT, a=FlowLimits.SAME_PORT)
        elif port == a.Port.CONTROLLER:
            self._controller(a.Controller(limit or 0xFFFF))
        elif port != a.Port.NONE:
            self._add(OpCode.OP_OUTPUT, a=port, b=limit)

    def _controller(self, action: a.Controller) -> None:
        given = action.extended or action.reason != PacketInReason.ACTION
        reason = action.reason if given else self.origin.value
        self.tells[len(self.ops)] = (action,)
        # What no buffer keeps is sent whole, whatever max_len says (OpenFlow 1.3, 7.4.1).
        self._add(OpCode.OP_CONTROLLER, a=_WHOLE, b=reason)

    def _resubmit(self, action: a.Resubmit) -> None:
        port, table = action.in_port, action.table_id
        if port == FlowLimits.SAME_PORT:
            raise OpenFlowError(Code.OFPBAC_BAD_ARGUMENT, "resubmit from port NONE; name a port")
        if table is not None and table >= TABLES:
            raise OpenFlowError(
                Code.OFPBAC_BAD_ARGUMENT, f"resubmit to table {table}; there are 0 to {TABLES - 1}"
            )
        self._add(
            OpCode.OP_RESUBMIT,
            a=FlowLimits.SAME_PORT if port is None else port,
            b=FlowLimits.SAME_TABLE if table is None else table,
        )

    def _dec_ttl(self, action: a.DecTtl) -> None:
        if not self.is_ip:
            # It clears even where it does nothing (rule 28).
            self._add(OpCode.OP_NOTHING, flags=_CLEARS)
        self.tells[len(self.ops)] = tuple(
            a.Controller(controller_id=n, reason=PacketInReason.INVALID_TTL)
            for n in action.controller_ids
        )
        self._add(OpCode.OP_DEC_TTL, need=OpNeed.NEED_IP, flags=_CLEARS)

    # Fields

    def _port(self, field: str, port: int) -> None:
        if self.protocol == _SCTP:
            raise OpenFlowError(
                Code.OFPBAC_BAD_SET_ARGUMENT, "the ports of SCTP cannot be written here"
            )
        self._write(field, port, need=OpNeed.NEED_PORTS)

    def _write(
        self, field: str, value: int, mask: int | None = None, need: OpNeed | None = None
    ) -> None:
        if mask is None:
            mask = FIELDS[field].all_ones
        if field in _TAG_FIELDS:
            up = _TAG_FIELDS[field]
            self._tci(value << up, mask << up)
            return
        _check_target(field)
        if field == "arp_op" and value > 0xFF:
            raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, f"arp_op={value}; it has 8 bits")
        if need is None:
            need = self._need(field)
        flags = 0 if field in PIPELINE else _CLEARS
        for piece in PIECES[field]:
            part = mask >> piece.offset & (1 << piece.bits) - 1
            if part:
                self._add(
                    OpCode.OP_SET,
                    need=need,
                    flags=flags,
                    word=piece.word,
                    value=(value >> piece.offset & part) << piece.shift,
                    mask=part << piece.shift,
                )
                flags = 0

    def _tci(self, value: int, mask: int) -> None:
        """Of the TCI in the key: with its bit for "has a tag" a tag comes or goes."""
        if mask & _TAG and not value & _TAG:
            self._add(
                OpCode.OP_SET, flags=_CLEARS, word=KeyWord.KEY_PORT, value=value & mask, mask=mask
            )
            return
        self._add(
            OpCode.OP_SET_VLAN,
            need=OpNeed.NEED_NOTHING if mask & _TAG else OpNeed.NEED_VLAN,
            flags=_CLEARS,
            word=KeyWord.KEY_PORT,
            value=value & mask,
            mask=mask,
        )

    def _need(self, field: str) -> OpNeed:
        need = need_of(FIELDS[field].prerequisite)
        if need is None:
            raise OpenFlowError(
                Code.OFPBAC_BAD_SET_ARGUMENT, f"{field} can be used only where it is matched"
            )
        return need

    def _move(self, source: a.Subfield, target: a.Subfield) -> None:
        _check_target(target.field)
        if target.field == "arp_op" and target.offset + target.bits > 8:
            raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, "of arp_op only the lower 8 bits")
        need = self._need_of_move(source.field, target.field)
        runs = _runs(source, target)
        if _rank(target) > _rank(source):
            runs.reverse()  # what is still to be read must not be written
        for bits, where, whence in sorted(runs, key=lambda run: run[2] is None):
            word, shift = where
            if whence is None:
                mask = (1 << bits) - 1 << shift
                self._add(OpCode.OP_SET, need=need, word=word, mask=mask)
                continue
            self._add(
                OpCode.OP_MOVE,
                need=need,
                word=word,
                shift=shift,
                from_word=whence[0],
                from_shift=whence[1],
                bits=bits,
            )

    def _need_of_move(self, source: str, target: str) -> OpNeed:
        """A flow has been asked for what its match must say; not whether fragments have ports."""
        if source not in PIECES:
            raise OpenFlowError(Code.OFPBAC_BAD_SET_TYPE, f"the switch does not know {source}")
        if self.match is not None:
            needs = (need_of(FIELDS[name].prerequisite) for name in (source, target))
            return next((n for n in needs if n in _WITH_PORTS), OpNeed.NEED_NOTHING)
        one, other = self._need(source), self._need(target)
        if target == "vlan_vid":
            other = OpNeed.NEED_VLAN
        if implies(one, other):
            return one
        if implies(other, one):
            return other
        raise OpenFlowError(
            Code.OFPBAC_MATCH_INCONSISTENT,
            f"move from {source} to {target}, which are not in the same frames; match them",
        )


Place = tuple[int, int]  # word of the key, lowest bit
Run = tuple[int, Place, Place | None]  # bits, to where, from where (None: zeros)


def _place(field: a.Subfield, bit: int) -> Place | None:
    number = field.offset + bit
    for piece in PIECES[field.field]:
        if piece.offset <= number < piece.offset + piece.bits:
            return piece.word, piece.shift + number - piece.offset
    return None


def _rank(field: a.Subfield) -> tuple[int, int]:
    """The higher, the more significant; the words of a wide field begin with the highest."""
    word, shift = _place(field, 0) or (0, 0)
    return -word, shift


def _runs(source: a.Subfield, target: a.Subfield) -> list[Run]:
    """Bits that are side by side in both, the lowest first."""
    runs: list[Run] = []
    for bit in range(target.bits):
        where, whence = _place(target, bit), _place(source, bit)
        if where is None:
            continue
        if runs and _goes_on(runs[-1], where, whence):
            runs[-1] = runs[-1][0] + 1, runs[-1][1], runs[-1][2]
        else:
            runs.append((1, where, whence))
    return runs


def _goes_on(run: Run, where: Place, whence: Place | None) -> bool:
    bits, first, origin = run
    if where != (first[0], first[1] + bits) or (whence is None) != (origin is None):
        return False
    return origin is None or whence == (origin[0], origin[1] + bits)


def _check_target(field: str) -> None:
    if field not in PIECES:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_TYPE, f"the switch does not know {field}")
    if field in _ONLY_READ or not FIELDS[field].writable:
        raise OpenFlowError(Code.OFPBAC_BAD_SET_ARGUMENT, f"the switch does not write {field}")


def _refuse(action: a.Action) -> None:
    """What the data plane has no op for."""
    match action:
        case a.WriteActions():
            raise OpenFlowError(
                Code.OFPBIC_UNSUP_INST, "there are no action sets; apply the actions"
            )
        case a.Unsupported(name):
            raise OpenFlowError(Code.OFPBAC_BAD_TYPE, f"the switch has no action {name}")
    raise OpenFlowError(Code.OFPBAC_BAD_TYPE, f"the switch does not do {type(action).__name__}")

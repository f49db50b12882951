# SPDX-License-Identifier: Apache-2.0
"""The lists of ops in a flow store. Flows with the same actions share one.

A group is a cell that leads to a list. It is there from the moment it is named, by a bucket of
another group perhaps, until nothing names it any more.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from heliograph.flows.compile_actions import Origin, Program, compile_actions, depends_on_match
from heliograph.flows.compile_fields import transport
from heliograph.kernel.flow_store_cells import GRACE, Cells, Memory
from heliograph.kernel.layouts import FlowLimits, OpCode
from heliograph.openflow.actions import Actions, Controller
from heliograph.openflow.match import Match

_PER_CELL, _FORMS = FlowLimits.CELL_OPS, FlowLimits.GROUP_FORMS
# In struct store_group.
_NEWEST, _SINCE, _OPS, _COUNTS = 0, 4, 4 + 4 * _FORMS, 4 + 8 * _FORMS


@dataclass(slots=True, eq=False)
class OpList:
    first: int  # number of its first op
    count: int
    groups: frozenset[int]
    tells: Mapping[int, tuple[Controller, ...]]  # by number
    key: Hashable = None
    uses: int = 0


NO_OPS = OpList(0, 0, frozenset(), {})


@dataclass(slots=True, eq=False)
class GroupCell:
    """What frames find of a group, the latest forms of it. Each is written in the place of the
    oldest, and then the place of the newest in one store."""

    number: int
    newest: int = 0
    ended: list[int] = field(default_factory=lambda: [-GRACE] * _FORMS)  # when frames saw the next

    @property
    def rests_since(self) -> int:
        """No frame that came later can read what `put` overwrites."""
        return self.ended[(self.newest + 1) % _FORMS]

    def put(self, memory: Memory, ops: OpList, version: int) -> None:
        """For frames of `version`; call `end` when they come."""
        place = (self.newest + 1) % _FORMS
        for at, value in ((_SINCE, version), (_OPS, ops.first), (_COUNTS, ops.count)):
            memory.set32(self.number, at + 4 * place, value)
        memory.set32(self.number, _NEWEST, place)
        self.newest = place

    def end(self, now: int) -> None:
        """Frames that come from now on do not see the one before the newest."""
        self.ended[self.newest - 1] = now

    def renumber(self, memory: Memory, ops: OpList) -> None:
        """Have frames of any version find these, in memory that none looks at yet."""
        memory.clear(self.number)
        self.newest, self.ended = 0, [-GRACE] * _FORMS
        memory.set32(self.number, _OPS, ops.first)
        memory.set32(self.number, _COUNTS, ops.count)


class OpLists:
    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._shared: dict[Hashable, OpList] = {}
        self._tells: dict[int, tuple[Controller, ...]] = {}
        self.groups: dict[int, GroupCell] = {}
        self._names: dict[int, int] = {}  # how often a group is named

    def tells(self, op: int) -> tuple[Controller, ...]:
        """The controllers that an op tells of the frame."""
        return self._tells.get(op, ())

    def shared(self, actions: Actions, match: Match | None, origin: Origin = Origin.FLOW) -> OpList:
        """The list for actions, for one more user. Raises OpenFlowError."""
        key: Hashable = actions
        if match is None or depends_on_match(actions):
            key = actions, match is None, origin, transport(match)
        found = self._shared.get(key)
        if found is None:
            found = self.write(compile_actions(actions, match, origin))
            found.key = key
            self._shared[key] = found
        found.uses += 1
        return found

    def release(self, ops: OpList) -> None:
        """One user less; no frame may be on its way with them when it was the last."""
        ops.uses -= 1
        if not ops.uses:
            del self._shared[ops.key]
            self.erase(ops)

    def write(self, program: Program) -> OpList:
        """A list of its own. Raises OpenFlowError where there is no room."""
        ops = program.ops
        if not ops:
            return OpList(0, 0, frozenset(), {})
        groups = program.groups()
        cells: dict[int, int] = {}
        try:
            for group in groups:
                cells[group] = self.name_group(group).number
            first = self._cells.take(-(-len(ops) // _PER_CELL)) * _PER_CELL
        except BaseException:
            for group in cells:
                self.unname_group(group)
            raise
        memory = self._cells.memory
        for number, op in enumerate(ops, first):
            cell = cells[op.a] if op.code == OpCode.OP_GROUP else op.a
            memory.put_op(number, op._replace(a=cell))
        tells = {first + place: told for place, told in program.tells.items()}
        self._tells |= tells
        return OpList(first, len(ops), groups, tells)

    def erase(self, ops: OpList) -> None:
        """No frame may be on its way with them."""
        if not ops.count:
            return
        for number in ops.tells:
            del self._tells[number]
        self._cells.give(ops.first // _PER_CELL, -(-ops.count // _PER_CELL))
        for group in ops.groups:
            self.unname_group(group)

    # Groups

    def name_group(self, group: int) -> GroupCell:
        """Its cell, for one more that names it. Raises OpenFlowError where there is no room."""
        cell = self.groups.get(group)
        if cell is None:
            number = self._cells.take()
            self._cells.memory.clear(number)
            cell = self.groups[group] = GroupCell(number)
        self._names[group] = self._names.get(group, 0) + 1
        return cell

    def unname_group(self, group: int) -> None:
        self._names[group] -= 1
        if not self._names[group]:
            del self._names[group]
            self._cells.give(self.groups.pop(group).number)

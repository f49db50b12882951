# SPDX-License-Identifier: Apache-2.0
"""A bridge's flow tables in the data plane's memory (bpf/flow_types.h), changed step by step.

All of a step is written for a version that is to come, then the version is raised by one store, so
that a frame meets a step whole or not at all. Cells that a step has put out of use are used again
only after flow_store_cells.GRACE. A rule that is removed is first taken out of its bucket, and its
cell is free after as much time again.

Counters go on under the id of a flow: what its rules in the data plane have counted, those it had
before, and what is in the ledger of rules that are gone.
"""

import os
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from heliograph.flows.change import Delta, GroupChange, Rule
from heliograph.flows.compile_actions import Origin
from heliograph.flows.compile_match import Shape, compile_match
from heliograph.flows.flow import TABLES, UNUSED, Flow, Usage
from heliograph.flows.tables import Tables
from heliograph.kernel import layouts
from heliograph.kernel.flow_store_buckets import Buckets, hash_of
from heliograph.kernel.flow_store_cells import CELL, LIMIT, Backing, Cells, Memory
from heliograph.kernel.flow_store_groups import Changes, Groups
from heliograph.kernel.flow_store_groups import Step as GroupStep
from heliograph.kernel.flow_store_ledger import (
    OP_COUNTS,
    OP_COUNTS_AT,
    RULE_COUNTS,
    RULE_COUNTS_AT,
    Counts,
    Ledger,
    counts_in,
)
from heliograph.kernel.flow_store_masks import Coming, Mask, Masks
from heliograph.kernel.flow_store_ops import OpList, OpLists
from heliograph.kernel.layouts import FlowLimits, Limits
from heliograph.openflow.actions import Actions, Controller
from heliograph.openflow.flows import GroupDesc
from heliograph.openflow.match import ANYTHING

_NEVER = 0xFFFF_FFFF
_LAST_VERSION = 0xFFFF_0000
_REMOVED = 4  # in struct store_rule
_FLAGS, _MISSES = 8, 16  # in struct store_table
_LONG = struct.Struct("=Q")
_RULE = layouts.STORE_RULE
_NO_WORDS = tuple((0,) * n for n in range(11))
_CHUNK = 32  # cells


@dataclass(slots=True, eq=False)
class _Rule:
    """One in the data plane."""

    flow: int
    table: int
    mask: Mask
    priority: int
    ops: OpList


@dataclass(slots=True, eq=False)
class _Step:
    """A change on its way into the data plane."""

    rules: list[tuple[Flow, Mask, tuple[int, ...], OpList]] = field(default_factory=list)
    masks: dict[int, dict[tuple[tuple[int, ...], tuple[int, ...]], Mask]] = field(
        default_factory=dict
    )  # new ones, by table
    groups: list[GroupStep] = field(default_factory=list)
    placed: list[int] = field(default_factory=list)  # cells, one for each of the first rules
    leaving: list[int] = field(default_factory=list)  # flows


class FlowStore:
    def __init__(
        self,
        backing: Backing,
        port_live: Callable[[int], bool],
        clock: Callable[[], int] = time.monotonic_ns,
        limit: int = LIMIT,
    ) -> None:
        """`port_live`: whether a port, by its number, is up, for groups that watch it.

        What frames find stays as it is until they are switched over to it, after `load`.
        """
        self._backing = backing
        self._cells = Cells(backing, clock, limit, self._moved)
        self._began = clock()
        self._version = 0
        self._seed = int.from_bytes(os.urandom(4))
        self._cells.memory.set32(0, 4, self._seed)
        self._buckets = Buckets(self._cells)
        self._lists = OpLists(self._cells)
        self._ledger = Ledger(self._cells)
        self._groups = Groups(self._cells, self._lists, self._ledger, port_live)
        self._masks = tuple(Masks(self._cells, table) for table in range(TABLES))
        # Ids of masks are part of the hash: who could tell them could have rules hash alike.
        self._next_mask, self._mask_step = (int.from_bytes(os.urandom(4)) | 1 for _ in range(2))
        self._rules: dict[int, _Rule] = {}  # by cell
        self._live: dict[int, int] = {}  # cells, by flow
        self._old: dict[int, list[int]] = {}  # cells of rules that were removed
        self._missed = [0] * TABLES  # in memory that is no more
        # Until it is settled: the store of before, and what it had counted when this was loaded.
        self._before: tuple[Memory, Counts, Tables] | None = None

    def load(self, tables: Tables) -> None:
        """Have everything there is where frames are about to look; counters go on."""
        everything = Delta(
            rules=tuple(Rule(None, flow) for flow in _winners(tables)),
            groups=tuple(GroupChange(None, entry) for entry in tables.groups.values()),
        )
        self.apply(everything)
        old = self._backing.found()
        if old is not None:
            counts = counts_in(old)
            self._carry(counts, tables)
            self._before = old, counts, tables
        self._cells.use()

    def settle(self) -> None:
        """Frames have been switched over to it: the store of before goes, with what it has counted
        since `load` added here."""
        if self._before is None:
            return
        (old, counts, tables), self._before = self._before, None
        self._backing.drop_found()
        self._carry(counts_in(old).since(counts), tables)
        old.close()

    def _carry(self, counts: Counts, tables: Tables) -> None:
        """Flows and groups that were not there before this process have an id of one that was."""
        for flow, count in counts.flows.items():
            if flow in tables.flows and tables.flows[flow].created < self._began:
                self._ledger.add(flow, *count)
        for (group, bucket), count in counts.buckets.items():
            if group in tables.groups and tables.groups[group].created < self._began:
                self._groups.add(group, bucket, count.packets, count.bytes)

    def apply(self, delta: Delta) -> None:
        """One step. Raises OpenFlowError, and then frames and counters are as before."""
        self._cells.ripen()
        changes: dict[int, GroupDesc | None] = {}
        for change in delta.groups:
            if change.before is not None:
                changes[change.before.id] = None
            if change.after is not None:
                changes[change.after.id] = change.after.desc
        self._step(delta.rules, changes)
        for flow in delta.gone:
            self._old.pop(flow, None)
            self._ledger.drop(flow)

    def ports_changed(self) -> None:
        """Ports that groups watch may be up or down now."""
        self._cells.ripen()
        self._step((), {}, ports=True)

    def tidy(self) -> None:
        """To be called every second or so, and let go of what is out of use."""
        self._cells.ripen()
        for masks in self._masks:
            masks.tidy()

    def close(self) -> None:
        """Frames go on finding what is there."""
        self._cells.memory.close()
        if self._before is not None:
            self._before[0].close()
        self._backing.close()

    # Steps

    def _step(self, rules: Iterable[Rule], changes: Changes, *, ports: bool = False) -> None:
        """`ports`: others are up than before."""
        if self._version >= _LAST_VERSION:
            self._renumber()
        step = _Step()
        try:
            if changes or ports:
                step.groups = self._groups.prepare(changes)
            self._prepare(step, rules)
            self._make_room(step)
            for prepared in step.rules:
                self._place(step, *prepared)
            version = self._version + 1
            self._groups.write(step.groups, version)
        except BaseException:
            self._take_back(step)
            raise
        if not (step.placed or step.leaving or step.groups):
            return
        memory = self._cells.memory
        for flow in step.leaving:
            memory.set32(self._live[flow], _REMOVED, version)
        memory.set32(0, 0, version)
        self._version = version
        self._finish(step)

    def _prepare(self, step: _Step, rules: Iterable[Rule]) -> None:
        shared = self._lists.shared
        for before, after in rules:
            if before is not None and after is not None and _same(before, after):
                continue
            if before is not None:
                step.leaving.append(before.id)
            if after is not None:
                shape, values = compile_match(after.match)
                ops = shared(after.actions, after.match)
                step.rules.append(
                    (after, self._mask(step, after.table_id, shape, values), values, ops)
                )

    def _mask(self, step: _Step, table: int, shape: Shape, values: tuple[int, ...]) -> Mask:
        mask = self._masks[table].find(shape.words, shape.masks)
        if mask is not None:
            return mask
        new = step.masks.setdefault(table, {})
        key = shape.words, shape.masks
        if key not in new:
            new[key] = Mask(self._next_mask, *key, values)
            self._next_mask = (self._next_mask + self._mask_step) & 0xFFFF_FFFF
        return new[key]

    def _make_room(self, step: _Step) -> None:
        """Masks and buckets for what is to come."""
        self._buckets.reserve(len(step.rules))
        tables: dict[int, dict[Mask, Coming]] = {}
        for flow, mask, values, _ in step.rules:
            coming = tables.setdefault(flow.table_id, {})
            apart = mask.apart(values)
            if mask not in coming:
                coming[mask] = Coming(flow.priority, apart)
                continue
            rules = coming[mask]
            rules.priority = max(rules.priority, flow.priority)
            rules.apart |= apart
        for table, coming in tables.items():
            self._masks[table].update(tuple(step.masks.get(table, {}).values()), coming)

    def _place(
        self, step: _Step, flow: Flow, mask: Mask, values: tuple[int, ...], ops: OpList
    ) -> None:
        """Write a rule that is not seen yet."""
        cell = self._cells.take()
        self._cells.memory.put(
            _RULE,
            cell,
            self._version + 1,
            _NEVER,
            mask.id,
            flow.priority,
            ops.count,
            ops.first,
            0,
            0,
            0,
            *values,
            *_NO_WORDS[10 - len(values)],
            flow.id,
        )
        try:
            self._buckets.link(cell, hash_of(self._seed, mask.id, values))
        except BaseException:
            self._cells.give(cell)
            raise
        self._rules[cell] = _Rule(flow.id, flow.table_id, mask, flow.priority, ops)
        self._masks[flow.table_id].added(mask, flow.priority)
        step.placed.append(cell)

    def _take_back(self, step: _Step) -> None:
        """No frame has seen any of it, nor shall one."""
        for cell in step.placed:
            self._cells.memory.set32(cell, _REMOVED, self._version + 1)
            self._cells.later(self._reclaim, cell)
        for _, _, _, ops in step.rules[len(step.placed) :]:
            self._lists.release(ops)
        for table in step.masks:
            self._masks[table].stale = True
        self._groups.abandon(step.groups)

    def _finish(self, step: _Step) -> None:
        """Frames see it."""
        for flow in step.leaving:
            cell = self._live.pop(flow)
            self._old.setdefault(flow, []).append(cell)
            self._cells.later(self._reclaim, cell)
        for cell in step.placed:
            self._live[self._rules[cell].flow] = cell
        self._groups.finish(step.groups)

    def _reclaim(self, cell: int) -> None:
        """No frame sees the rule any more; one may be looking at its bucket."""
        rule = self._rules.pop(cell)
        self._buckets.unlink(cell)
        self._masks[rule.table].gone(rule.mask, rule.priority)
        self._lists.release(rule.ops)
        self._cells.give_later(cell)
        cells = self._old.get(rule.flow, [])
        if cell in cells:
            tick, packets, octets = self._cells.memory.get(RULE_COUNTS, cell, RULE_COUNTS_AT)
            self._ledger.add(rule.flow, packets, octets, tick)
            cells.remove(cell)
            if not cells:
                del self._old[rule.flow]

    def _renumber(self) -> None:
        """Begin with versions anew, for they have come to their end."""
        self._cells.renew(self._forget_versions)
        self._version = 1

    def _forget_versions(self) -> None:
        memory, live = self._cells.memory, set(self._live.values())
        for cell in self._rules:
            memory.set32(cell, 0, 0)
            memory.set32(cell, _REMOVED, _NEVER if cell in live else 0)
        self._groups.renumber()
        memory.set32(0, 0, 1)

    def _moved(self, copy: bytes, old: Memory) -> None:
        """The program went on counting in the old memory while it was copied."""
        now = bytes(old.buffer[: len(copy)])
        for start in range(0, len(copy), _CHUNK * CELL):
            if copy[start : start + _CHUNK * CELL] == now[start : start + _CHUNK * CELL]:
                continue
            for cell in range(start // CELL, min(start // CELL + _CHUNK, len(copy) // CELL)):
                if copy[cell * CELL : (cell + 1) * CELL] != now[cell * CELL : (cell + 1) * CELL]:
                    self._add_counted(cell, copy, now)

    def _add_counted(self, cell: int, copy: bytes, now: bytes) -> None:
        rule, at = self._rules.get(cell), cell * CELL
        if cell <= TABLES:
            (before,), (after,) = (_LONG.unpack_from(data, at + _MISSES) for data in (copy, now))
            self._missed[cell - 1] += after - before
        elif rule is not None:
            before, after = (
                RULE_COUNTS.unpack_from(data, at + RULE_COUNTS_AT) for data in (copy, now)
            )
            if self._live.get(rule.flow) == cell or cell in self._old.get(rule.flow, ()):
                self._ledger.add(rule.flow, after[1] - before[1], after[2] - before[2], after[0])
        else:
            for op in range(cell * FlowLimits.CELL_OPS, (cell + 1) * FlowLimits.CELL_OPS):
                start = op * layouts.OP.size + OP_COUNTS_AT
                before, after = (OP_COUNTS.unpack_from(data, start) for data in (copy, now))
                self._groups.add_op(op, after[0] - before[0], after[1] - before[1])

    # Counters

    def usage(self, flow_id: int) -> Usage:
        packets, octets, tick = self._ledger.get(flow_id)
        cell = self._live.get(flow_id)
        for n in (*self._old.get(flow_id, ()), *(() if cell is None else (cell,))):
            used, more, long = self._cells.memory.get(RULE_COUNTS, n, RULE_COUNTS_AT)
            packets, octets, tick = packets + more, octets + long, max(tick, used)
        if not tick and not packets:
            return UNUSED
        return Usage(packets, octets, tick << Limits.TICK_SHIFT)

    def bucket_usage(self, group_id: int, bucket_id: int) -> tuple[int, int]:
        """Packets and bytes."""
        return self._groups.usage(group_id, bucket_id)

    def misses(self, table_id: int) -> int:
        """Packets that found no flow in a table."""
        (missed,) = self._cells.memory.get(_LONG, 1 + table_id, _MISSES)
        return self._missed[table_id] + int(missed)

    # What frames for controllers name, and what controllers send

    def rule_at(self, cell: int) -> int | None:
        """The id of the flow that a rule is of; None: it is gone."""
        rule = self._rules.get(cell)
        return rule.flow if rule else None

    def controllers_at(self, op: int) -> tuple[Controller, ...]:
        """What an op tells which controllers."""
        return self._lists.tells(op)

    def run_ops(self, actions: Actions) -> tuple[int, int]:
        """The first op, and how many: for a frame to be sent by, within GRACE. Raises
        OpenFlowError."""
        self._cells.ripen()
        ops = self._lists.shared(actions, None, Origin.PACKET_OUT)
        self._cells.later(self._lists.release, ops)
        return ops.first, ops.count

    def set_table_flags(self, table_id: int, flags: int) -> None:
        """layouts.TableFlags."""
        self._cells.memory.set32(1 + table_id, _FLAGS, flags)


def _winners(tables: Tables) -> Iterable[Flow]:
    for table in tables.tables:
        for flow in table.covered(ANYTHING):
            if table.winner(flow.match) is flow:
                yield flow


def _same(before: Flow, after: Flow) -> bool:
    """Whether frames see no difference, and counters go on."""
    return (
        before.id == after.id
        and before.priority == after.priority
        and before.actions == after.actions
    )

# SPDX-License-Identifier: Apache-2.0
"""The groups in a flow store: which buckets frames go to now, and what those have counted."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from heliograph.flows.compile_groups import chosen, compile_group
from heliograph.kernel.flow_store_cells import Cells
from heliograph.kernel.flow_store_ledger import Ledger, op_counts
from heliograph.kernel.flow_store_ops import NO_OPS, GroupCell, OpList, OpLists
from heliograph.openflow.flows import Bucket, GroupDesc

Changes = Mapping[int, GroupDesc | None]


@dataclass(slots=True, eq=False)
class _Form:
    """What frames find of a group in some version."""

    ops: OpList
    buckets: tuple[Bucket, ...]
    places: Mapping[int, int]  # buckets by the numbers of the ops that count them


@dataclass(slots=True, eq=False)
class _Group:
    desc: GroupDesc
    form: _Form
    ending: list[_Form] = field(default_factory=list)  # still counted
    counted: dict[int, tuple[int, int]] = field(default_factory=dict)  # by bucket, for good


@dataclass(slots=True, eq=False)
class Step:
    """A change of a group, until frames see it."""

    number: int
    cell: GroupCell
    desc: GroupDesc | None
    form: _Form
    counts_on: bool


_NO_FORM = _Form(NO_OPS, (), {})


class _Live:
    """Each port and group is looked at once, however many buckets watch it."""

    def __init__(self, descs: Mapping[int, GroupDesc], port: Callable[[int], bool]) -> None:
        self._descs, self.port = descs, cache(port)
        self._groups: set[int] | None = None

    def group(self, group_id: int) -> bool:
        if self._groups is None:
            self._groups = self._find()
        return group_id in self._groups

    def _find(self) -> set[int]:
        """From groups that are live by themselves to those that watch them."""
        found: set[int] = set()
        watchers: dict[int, list[int]] = {}
        for number, desc in self._descs.items():
            for bucket in desc.buckets:
                if bucket.watch_group is not None:
                    watchers.setdefault(bucket.watch_group, []).append(number)
                elif bucket.watch_port is None:
                    found.add(number)
                if bucket.watch_port is not None and self.port(bucket.watch_port):
                    found.add(number)
        ahead = list(found)
        while ahead:
            more = set(watchers.get(ahead.pop(), ())) - found
            found |= more
            ahead += more
        return found


class Groups:
    def __init__(
        self, cells: Cells, lists: OpLists, ledger: Ledger, port_live: Callable[[int], bool]
    ) -> None:
        self._cells, self._lists, self._ledger = cells, lists, ledger
        self._port_live = port_live
        self._groups: dict[int, _Group] = {}
        self._counting: dict[int, tuple[_Group, int]] = {}  # by op

    def prepare(self, changes: Changes) -> list[Step]:
        """Everything but what frames see, also of groups that watch others. Raises OpenFlowError,
        and then has done nothing."""
        descs = {n: group.desc for n, group in self._groups.items()}
        for n, desc in changes.items():
            if desc is None:
                descs.pop(n, None)
            else:
                descs[n] = desc
        live = _Live(descs, self._port_live)
        steps: list[Step] = []
        try:
            for n, desc in changes.items():
                if desc is not None or n in self._groups:
                    steps.append(self._begin(n, desc, counts_on=False))
            steps += self._affected(changes, live)
            for step in steps:
                if step.desc is not None:
                    step.form = self._form(step.desc, chosen(step.desc, live))
        except BaseException:
            self.abandon(steps)
            raise
        return steps

    def _begin(self, number: int, desc: GroupDesc | None, *, counts_on: bool) -> Step:
        return Step(number, self._lists.name_group(number), desc, _NO_FORM, counts_on)

    def _affected(self, changes: Changes, live: _Live) -> Iterator[Step]:
        """Groups that are the same, but for other buckets that are live."""
        for n, group in self._groups.items():
            watches = any(
                b.watch_port is not None or b.watch_group is not None for b in group.desc.buckets
            )
            if n in changes or not watches:
                continue
            if chosen(group.desc, live) != group.form.buckets:
                yield self._begin(n, group.desc, counts_on=True)

    def _form(self, desc: GroupDesc, buckets: tuple[Bucket, ...]) -> _Form:
        compiled = compile_group(desc, buckets)
        ops = self._lists.write(compiled.program)
        return _Form(ops, buckets, {ops.first + n: b for n, b in compiled.buckets.items()})

    def abandon(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._lists.erase(step.form.ops)
            self._lists.unname_group(step.number)

    def write(self, steps: Sequence[Step], version: int) -> None:
        """Let frames of `version` see it, and those before see what was. Raises OpenFlowError, and
        then nothing is written."""
        if any(step.cell.rests_since >= self._cells.gone_since() for step in steps):
            self._cells.grace()
        for step in steps:
            step.cell.put(self._cells.memory, step.form.ops, version)

    def finish(self, steps: Iterable[Step]) -> None:
        """Frames see it; what was is done with when none is on its way that has not."""
        for step in steps:
            step.cell.end(self._cells.clock())
            group = self._groups.pop(step.number, None)
            if group is not None:
                # It was named by itself already, or is not any more.
                self._cells.later(self._lists.unname_group, step.number)
                self._end(group, step)
            if step.desc is None:
                self._cells.later(self._lists.unname_group, step.number)
                continue
            if group is None or not step.counts_on:
                group = _Group(step.desc, step.form)
            group.form = step.form
            self._groups[step.number] = group
            for op, n in step.form.places.items():
                self._counting[op] = group, n
                self._ledger.add_op((step.number, n), op)

    def _end(self, group: _Group, step: Step) -> None:
        if step.counts_on:
            group.ending.append(group.form)
        else:
            for bucket in group.counted:
                self._ledger.drop_bucket((step.number, bucket))
            for form in (group.form, *group.ending):
                for op in form.places:
                    self._ledger.drop_op(op)
        self._cells.later(self._forget, group, group.form)

    def _forget(self, group: _Group, form: _Form) -> None:
        for op, bucket in form.places.items():
            self._add(group, bucket, *op_counts(self._cells.memory, op))
            self._ledger.drop_op(op)
            del self._counting[op]
        if form in group.ending:
            group.ending.remove(form)
        self._lists.erase(form.ops)

    def _add(self, group: _Group, bucket: int, packets: int, octets: int) -> None:
        before = group.counted.get(bucket, (0, 0))
        group.counted[bucket] = counted = before[0] + packets, before[1] + octets
        number = group.desc.group_id
        if self._groups.get(number) is group and any(counted):
            self._ledger.set_bucket((number, bucket), *counted)

    def usage(self, number: int, bucket: int) -> tuple[int, int]:
        """Packets and bytes that a bucket was given."""
        group = self._groups.get(number)
        if group is None:
            return 0, 0
        packets, octets = group.counted.get(bucket, (0, 0))
        for form in (group.form, *group.ending):
            for op, n in form.places.items():
                if n == bucket:
                    more = op_counts(self._cells.memory, op)
                    packets, octets = packets + more[0], octets + more[1]
        return packets, octets

    def add(self, number: int, bucket: int, packets: int, octets: int) -> None:
        """What a bucket was given in another store."""
        group = self._groups.get(number)
        if group is not None:
            self._add(group, bucket, packets, octets)

    def add_op(self, op: int, packets: int, octets: int) -> None:
        """What an op has counted in memory that is no more, if it is one that counts."""
        if op in self._counting:
            group, bucket = self._counting[op]
            self._add(group, bucket, packets, octets)

    def renumber(self) -> None:
        """All that is seen now is of any version."""
        for number, cell in self._lists.groups.items():
            group = self._groups.get(number)
            cell.renumber(self._cells.memory, group.form.ops if group else NO_OPS)

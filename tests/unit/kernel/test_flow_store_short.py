# SPDX-License-Identifier: Apache-2.0
"""Memory is short, or the kernel has none: what is refused changes nothing, then or later."""

import errno
from dataclasses import dataclass
from random import Random

import pytest
from tests.oracle.flow_store import Cases, group_ops, version_of
from tests.unit.flows.mods import DELETE, group, mod, port
from tests.unit.kernel.flow_stores import Bench, Plain
from tests.unit.kernel.test_flow_store import Checked, random_mod
from tests.unit.kernel.test_flow_store_groups import outputs

from heliograph.flows.tables import FailedAt
from heliograph.kernel.flow_store_cells import LIMIT, Memory
from heliograph.openflow.actions import ALL_GROUPS, ALL_TABLES, Actions, Group, Output
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import Bucket, FlowMod, GroupCommand, GroupMod, GroupType

GROUPS = 5
NO_FLOWS = mod(DELETE, table_id=ALL_TABLES)
NO_GROUPS = GroupMod(command=GroupCommand.DELETE, group_id=ALL_GROUPS)


@dataclass
class Failing(Plain):
    """A kernel that has no memory most of the time."""

    random: Random | None = None

    def _fail(self) -> None:
        if self.random is not None and self.random.random() < 0.8:
            raise OSError(errno.ENOMEM, "no memory")

    def make(self, cells: int) -> Memory:
        self._fail()
        return super().make(cells)

    def use(self) -> None:
        self._fail()
        super().use()

    def grace(self) -> None:
        self._fail()
        super().grace()


class Short(Checked):
    """`refused` counts what found no room."""

    def __init__(self, seed: int, limit: int) -> None:
        self.cases = Cases(Random(seed))
        self.packets = [self.cases.packet() for _ in range(60)]
        self.known: list[FlowMod] = []
        self.refused = 0
        self.kernel = Failing()
        super().__init__(backing=self.kernel, limit=limit, live={1, 2})
        self.wait()
        self.used = self.store._cells.used - self.store._buckets._number

    def random_mods(self) -> list[FlowMod | GroupMod]:
        random = self.cases.random
        mods: list[FlowMod | GroupMod] = []
        for _ in range(random.choice([1, 1, 1, 5, 60])):
            if random.random() < 0.3:
                mods.append(self.group_mod())
                continue
            one = random_mod(self.cases, self.packets, self.known)
            more = tuple(Output(random.randrange(60)) for _ in range(random.choice([1, 9, 40])))
            to_group: Actions = ()
            if random.random() < 0.3 and self.tables.groups:
                to_group = (Group(random.choice(list(self.tables.groups))),)
            one = mod(
                one.command,
                match=one.match,
                table_id=one.table_id,
                priority=one.priority,
                actions=(*one.actions, *to_group, *more),
            )
            mods.append(one)
            self.known = [*self.known[-60:], one]
        return mods

    def group_mod(self) -> GroupMod:
        random = self.cases.random
        number = random.randint(1, GROUPS)
        there = number in self.tables.groups
        if there and random.random() < 0.3:
            return GroupMod(command=GroupCommand.DELETE, group_id=number)
        lower = [n for n in self.tables.groups if n < number]
        buckets = tuple(
            Bucket(
                actions=(Group(random.choice(lower)),)
                if lower and random.random() < 0.4
                else (Output(random.randrange(1, 60)),),
                weight=0,
                watch_port=random.randrange(1, 4),
                watch_group=random.choice(lower) if lower and random.random() < 0.5 else None,
            )
            for _ in range(random.choice([1, 2, 8]))
        )
        command = GroupCommand.MODIFY if there else GroupCommand.ADD
        return group(number, type=GroupType.FAST_FAILOVER, buckets=buckets, command=command)

    def try_all(self, mods: list[FlowMod | GroupMod]) -> None:
        try:
            self.change(*mods)
        except FailedAt:
            pass
        except OpenFlowError as error:
            assert error.code.name == "OFPFMFC_TABLE_FULL"
            self.refused += 1

    def let_time_pass(self) -> None:
        random = self.cases.random
        self.now += random.choice([1, 10**8, 2 * 10**9])
        if random.random() < 0.3:
            self.store.tidy()
        if random.random() < 0.1:
            self.live ^= {random.randrange(1, 4)}
            self.ports_changed()

    def ports_changed(self) -> None:
        while True:  # as the bridge does, second after second
            try:
                self.store.ports_changed()
                return
            except OpenFlowError:
                self.refused += 1
                self.now += 2 * 10**9
                self.store.tidy()
                if not self.kernel.random:
                    self.change(NO_FLOWS)

    def check(self) -> None:
        """A frame finds what the model says."""
        for packet in self.cases.random.sample(self.packets, 6):
            self.compare(packet, 0)
            self.compare(packet, 1)
        cells = {n: cell.number for n, cell in self.store._lists.groups.items()}
        for number, entry in self.tables.groups.items():
            live = [bucket for bucket in entry.desc.buckets if self.is_live(bucket)]
            (action,) = live[0].actions if live else (None,)
            found = [op.a for op in group_ops(self.data, cells[number], version_of(self.data))]
            if isinstance(action, Group):
                assert found[1:] == [cells[action.group_id]]
            else:
                assert found[1:] == ([action.port] if isinstance(action, Output) else [])

    def is_live(self, bucket: Bucket) -> bool:
        below = self.tables.groups.get(bucket.watch_group or -1)
        return bucket.watch_port in self.live or (
            below is not None and any(self.is_live(b) for b in below.desc.buckets)
        )


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_what_is_refused_changes_nothing(seed: int, fails: bool) -> None:
    bench = Short(seed, LIMIT if fails else 1024)
    bench.change(*(mod(match=port(n), table_id=3) for n in range(600 if fails else 400)))
    bench.kernel.random = Random(seed) if fails else None
    for _ in range(100):
        bench.try_all(bench.random_mods())
        bench.let_time_pass()
        bench.check()
    assert bench.refused > 2
    bench.kernel.random = None
    bench.change(NO_FLOWS, NO_GROUPS)
    bench.wait()
    store = bench.store
    assert not store._rules and not store._lists._shared and not store._lists.groups
    ledger = len(store._ledger._free) // 3
    assert store._cells.used == bench.used + store._buckets._number + ledger


def test_a_group_that_cannot_wait_for_frames_is_as_it_was() -> None:
    bench = Bench(backing=Failing())
    bench.change(group(1), mod(match=port(1), actions=(Group(1),)))
    kernel = bench.backing
    assert isinstance(kernel, Failing)
    kernel.random = Random(1)
    refused = 0
    for n in range(1, 100):
        before = outputs(bench)
        try:
            bench.change(group(1, (Output(n),), command=GroupCommand.MODIFY))
        except OpenFlowError:
            refused += 1
            assert outputs(bench) == before
        else:
            assert outputs(bench) == [n]
    assert 5 < refused < 90

# SPDX-License-Identifier: Apache-2.0
"""What is taken is given back; used cells rest; and versions begin anew."""

from random import Random

from tests.oracle.flow_store import version_of
from tests.unit.flows.mods import DELETE, MODIFY, ONE, TWO, group, mod, port
from tests.unit.kernel.flow_stores import Bench, Plain
from tests.unit.kernel.test_flow_store_groups import outputs

from heliograph.kernel.flow_store_cells import GRACE, LIMIT, Cells, Memory
from heliograph.openflow.actions import Group, Output
from heliograph.openflow.flows import GroupCommand
from heliograph.openflow.match import ANYTHING, Match


def nothing_moved(copy: bytes, old: Memory) -> None:
    raise AssertionError("frames find no store")


def test_no_cell_is_taken_twice_and_all_come_back() -> None:
    random = Random(5)
    cells = Cells(Plain(), lambda: 0, LIMIT, nothing_moved)
    taken: dict[int, int] = {}
    for _ in range(3000):
        if taken and random.random() < 0.5:
            first = random.choice(list(taken))
            cells.give(first, taken.pop(first))
        else:
            count = random.choice([1, 1, 1, 2, 3, 4, 16, 60])
            taken[cells.take(count)] = count
    places = sorted(taken.items())
    ends = [first + count for first, count in places]
    assert places[0][0] >= 65
    assert all(end <= start for end, (start, _) in zip(ends, places[1:], strict=False))
    for first, count in places:
        cells.give(first, count)
    assert cells.used == 65


def test_cells_rest_before_they_are_used_again() -> None:
    clock = [0]
    cells = Cells(Plain(), lambda: clock[0], LIMIT, nothing_moved)
    first = cells.take()
    cells.give_later(first)
    for clock[0] in (0, GRACE - 1):
        cells.ripen()
        assert cells.take() != first
    clock[0] = GRACE
    cells.ripen()
    assert cells.take() == first


def test_a_rule_is_out_of_its_bucket_long_before_its_cell_is_another() -> None:
    """Or a frame that has found it there could take it for the other one."""
    bench = Bench()
    bench.change(mod(match=port(1)))
    (cell,) = bench.store._rules
    bench.change(mod(DELETE, match=port(1)))
    assert cell in bench.store._buckets.hashes
    bench.now += GRACE
    bench.store.tidy()
    assert cell not in bench.store._buckets.hashes
    for n in range(2, 90):
        bench.change(mod(match=port(n)))
    assert cell not in bench.store._rules
    bench.now += GRACE
    for n in range(90, 190):
        bench.change(mod(match=port(n)))
    assert cell in bench.store._rules


def test_buckets_that_were_replaced_stay_as_they_are_for_a_while() -> None:
    """For frames that look into them."""
    bench = Bench()
    first = bench.store._buckets._first
    for n in range(250):
        bench.change(mod(match=port(n)))
    start, end = first * 128, (first + 64) * 128
    before = bytes(bench.data[start:end])
    for n in range(250, 400):
        bench.change(mod(match=port(n), actions=(Output(n),)))
    assert bench.store._buckets._first != first
    assert sum(a != b for a, b in zip(before, bench.data[start:end], strict=True)) < 800
    bench.wait()
    for n in range(400, 600):
        bench.change(mod(match=port(n), actions=(Output(n),)))
    assert sum(a != b for a, b in zip(before, bench.data[start:end], strict=True)) > 800


def test_everything_that_was_used_is_free_in_the_end() -> None:
    bench = Bench()
    bench.wait()
    used = bench.store._cells.used
    for n in range(300):
        fields = {"reg0": (n, 0xFFFF_FFFF), "metadata": (0, (1 << n % 60) - 1)}
        bench.change(mod(match=Match.of(fields), actions=(Output(n), Output(1)) * (n % 9)))
        bench.now += 10**7
    bench.change(mod(DELETE, match=ANYTHING))
    bench.wait()
    ours = bench.store._buckets
    assert bench.store._cells.used == used - 64 + ours._number
    assert not ours.hashes and not bench.store._rules


def test_versions_begin_anew_before_their_end() -> None:
    bench = Bench()
    bench.change(group(1, ONE), mod(match=port(1), actions=(Group(1),)))
    bench.change(mod(match=port(2)), mod(match=port(3)))
    bench.store._version = 0xFFFF_0000
    bench.backing.used.set32(0, 0, 0xFFFF_0000)  # type: ignore[union-attr]
    bench.change(mod(DELETE, match=port(2)))
    assert version_of(bench.data) == 2
    found = [outputs(bench, in_port=n) for n in (1, 2, 3)]
    assert found == [[1], None, [1]]
    bench.change(mod(MODIFY, match=port(3), actions=TWO))
    bench.change(group(1, TWO, command=GroupCommand.MODIFY))
    assert [outputs(bench, in_port=n) for n in (1, 2, 3)] == [[2], None, [2]]

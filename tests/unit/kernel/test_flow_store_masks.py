# SPDX-License-Identifier: Apache-2.0
"""The row of a table's masks: sorted, and no longer than it need be."""

from random import Random

from tests.oracle.flow_store import cell
from tests.unit.flows.mods import DELETE, DELETE_STRICT, mod
from tests.unit.kernel.flow_stores import Bench

from heliograph.kernel import layouts
from heliograph.kernel.layouts import KeyWord, TableFlags
from heliograph.openflow.match import ANYTHING, Match


def row(bench: Bench, table: int = 0) -> list[layouts.StoreMask]:
    found = layouts.StoreTable.unpack(cell(bench.data, 1 + table))
    return [
        layouts.StoreMask.unpack(cell(bench.data, n))
        for n in range(found.masks, found.masks + found.number)
    ]


def masked(bits: int) -> Match:
    """Each has a mask of its own."""
    return Match.of({"metadata": (0, (1 << bits) - 1)})


def priorities(bench: Bench) -> list[int]:
    return [mask.priority for mask in row(bench)]


def test_masks_are_sorted_whatever_comes_first() -> None:
    random = Random(3)
    bench = Bench()
    wanted = []
    for n in range(1, 60):
        priority = random.randint(1, 1000)
        wanted.append(priority)
        bench.change(mod(match=masked(n), priority=priority))
        assert priorities(bench) == sorted(wanted, reverse=True)


def test_masks_at_the_ends_of_a_row_need_no_other_row() -> None:
    bench = Bench()
    for n in range(1, 21):
        bench.change(mod(match=masked(n), priority=500))
    used = bench.store._cells.used
    bench.change(mod(match=masked(30), priority=499))
    bench.change(mod(match=masked(31), priority=501))
    assert priorities(bench) == [501, *[500] * 20, 499]
    assert bench.store._cells.used == used + 2
    bench.change(mod(match=masked(32), priority=500))
    assert bench.store._cells.used > used + 3


def test_a_mask_without_rules_goes_when_no_frame_can_look_for_them() -> None:
    bench = Bench()
    bench.change(mod(match=masked(1), priority=5), mod(match=masked(2), priority=9))
    bench.change(mod(match=masked(1), priority=50))
    assert priorities(bench) == [50, 9]
    bench.change(mod(DELETE_STRICT, match=masked(1), priority=50))
    bench.store.tidy()
    assert priorities(bench) == [50, 9]
    bench.wait()
    assert priorities(bench) == [9, 5]
    bench.change(mod(DELETE, match=ANYTHING))
    assert priorities(bench) == [9, 5]
    bench.wait()
    assert priorities(bench) == []
    bench.change(mod(match=masked(1), priority=7))
    assert priorities(bench) == [7]


def test_an_emptied_table_takes_what_matches_everything_again() -> None:
    bench = Bench()
    for _ in range(3):
        bench.change(mod(match=ANYTHING))
        bench.change(mod(DELETE, match=ANYTHING))
    bench.change(mod(match=ANYTHING, priority=3))
    assert priorities(bench) == [0x8000]  # until the others are forgotten
    bench.wait()
    assert priorities(bench) == [3]


def test_frames_skip_masks_by_what_all_their_rules_share() -> None:
    bench = Bench()

    def add(in_port: int, kind: int) -> layouts.StoreMask:
        fields = {"in_port": (in_port, 0xFFFF), "eth_type": (kind, 0xFFFF), "eth_dst": (1, 3)}
        bench.change(mod(match=Match.of(fields)))
        (mask,) = row(bench)
        return mask

    mask = add(1, 0x800)
    assert (mask.skip_word, mask.skip_mask) == (KeyWord.KEY_PORT, 0xFFFF_FFFF_0000)
    used = bench.store._cells.used
    mask = add(2, 0x800)
    assert (mask.skip_value & mask.skip_mask, mask.skip_mask) == (0x0800_0000, 0xFFFC_FFFF_0000)
    assert add(0xFFFD, 0xF7FF).skip_mask == 0
    assert bench.store._cells.used <= used + 4, "the row was written anew"


def test_flags_of_a_table_are_set_beside_its_masks() -> None:
    bench = Bench()
    bench.change(mod(match=masked(1), table_id=3))
    bench.store.set_table_flags(3, TableFlags.TABLE_MISS_TO_CONTROLLER)
    found = layouts.StoreTable.unpack(cell(bench.data, 4))
    assert (found.flags, found.number) == (TableFlags.TABLE_MISS_TO_CONTROLLER, 1)
    bench.store.set_table_flags(3, 0)
    assert layouts.StoreTable.unpack(cell(bench.data, 4)).flags == 0

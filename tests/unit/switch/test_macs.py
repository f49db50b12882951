# SPDX-License-Identifier: Apache-2.0
"""When the MAC tables are swept, with the kernel played."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import pytest
from tests.unit.waiting import PATIENCE, until

from heliograph.kernel.fdb import Fdb
from heliograph.kernel.snapshot import BridgeEntry
from heliograph.switch import macs

BRIDGE = BridgeEntry(
    slot=3,
    forwarding=True,
    forward_bpdu=False,
    mac_age=300,
    mac_limit=8192,
    ports=(),
    mirrors=(),
)


class Table:
    """Remembers with which bridges each slice of a sweep was made."""

    def __init__(self, slices: int = 1) -> None:
        self.slices = slices
        self.swept: list[Mapping[int, BridgeEntry]] = []

    def sweep(self, bridges: Callable[[], Mapping[int, BridgeEntry]]) -> Iterator[None]:
        for _ in range(self.slices):
            self.swept.append(bridges())
            time.sleep(0.002)
            yield

    def flap(self, slot: int) -> None:
        return None


def keeper(table: Table) -> macs.MacKeeper:
    return macs.MacKeeper(cast("Fdb", table), lambda: None)


async def test_nothing_is_swept_before_the_bridges_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start that has to wait for the database keeps what was learned."""
    monkeypatch.setattr(macs, "SWEEP_SECONDS", 0.01)
    table = Table()
    made = keeper(table)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.05)
    assert table.swept == []
    made.configure({})
    await until(lambda: table.swept)
    assert not any(table.swept)
    running.cancel()
    await asyncio.wait({running}, timeout=PATIENCE)
    assert running.cancelled()


async def test_it_ends_when_cancelled_just_as_a_sweep_is_due() -> None:
    table = Table()
    made = keeper(table)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.01)
    made.configure({3: BRIDGE})
    await asyncio.sleep(0)  # the wait has ended, and nobody has been told yet
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=PATIENCE)
    running.cancel()
    assert done, "it goes on"


async def swept(table: Table, wanted: int) -> float:
    """How long it took until so many slices were made."""
    began = time.monotonic()
    await until(lambda: len(table.swept) >= wanted)
    return time.monotonic() - began


async def test_a_change_is_swept_in_haste_and_seen_by_the_sweep_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a sweep rests most of the time."""
    monkeypatch.setattr(macs, "SWEEP_SECONDS", 0.01)
    table = Table(slices=10)
    made = keeper(table)
    running = asyncio.create_task(made.run())
    made.configure({})
    hasty = await swept(table, 10)
    slow = await swept(table, 20)
    for number in range(20):  # for a machine that is busy elsewhere
        if slow > 2 * hasty:
            break
        begun = len(table.swept)
        made.configure({number + 10: BRIDGE})
        await swept(table, begun + 10)  # the sweep that ran, in haste
        hasty = await swept(table, begun + 20)
        slow = await swept(table, begun + 30)
    assert slow > 2 * hasty
    begun = len(table.swept)
    await swept(table, begun + 5)
    done = len(table.swept)
    made.configure({3: BRIDGE})
    await swept(table, done + 20)
    assert table.swept[-1] == {3: BRIDGE}
    first = table.swept.index({3: BRIDGE})
    assert first <= done + 1, "the sweep that ran went on with what is in force no more"
    assert table.swept[first:] == [{3: BRIDGE}] * (len(table.swept) - first)
    running.cancel()
    await asyncio.wait({running}, timeout=PATIENCE)


async def test_what_the_kernel_refuses_a_sweep_is_raised() -> None:
    class Refusing(Table):
        def sweep(self, bridges: Callable[[], Mapping[int, BridgeEntry]]) -> Iterator[None]:
            raise OSError("no")
            yield

    made = keeper(Refusing())
    made.configure({})
    with pytest.raises(OSError, match="no"):
        await asyncio.wait_for(made.run(), 1)

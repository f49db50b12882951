# SPDX-License-Identifier: Apache-2.0
"""When the MAC tables are swept, with the kernel played."""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

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
    """Remembers with which bridges it was swept."""

    def __init__(self) -> None:
        self.swept: list[Mapping[int, BridgeEntry]] = []

    def sweep(self, bridges: Mapping[int, BridgeEntry]) -> int:
        self.swept.append(bridges)
        return 0

    def flap(self, slot: int) -> None:
        return None


def keeper(table: Table) -> macs.MacKeeper:
    return macs.MacKeeper(cast("Fdb", table), lambda: None)


async def test_nothing_is_swept_before_the_bridges_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A start that has to wait for the database keeps what was learned."""
    monkeypatch.setattr(macs, "LOOK_SECONDS", 0.01)
    table = Table()
    made = keeper(table)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.05)
    assert table.swept == []
    made.configure({})
    await asyncio.sleep(0.05)
    assert table.swept == [{}]
    running.cancel()
    await asyncio.wait({running}, timeout=1)
    assert running.cancelled()


async def test_it_ends_when_cancelled_just_as_a_sweep_is_due() -> None:
    table = Table()
    made = keeper(table)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0.01)
    made.configure({3: BRIDGE})
    await asyncio.sleep(0)  # the wait has ended, and nobody has been told yet
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=0.5)
    running.cancel()
    assert done, "it goes on"

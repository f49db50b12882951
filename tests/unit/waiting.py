# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests that run in one process with what they test."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0  # seconds that only bound a failure
_STEPS = 10


async def rest(seconds: float = 0.02) -> None:
    """Let what is under way be done. In steps: when the machine stands still, that is over in one
    of them, and all else has the others."""
    for _ in range(_STEPS):
        await asyncio.sleep(seconds / _STEPS)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what must come about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)

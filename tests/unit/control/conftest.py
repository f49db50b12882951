# SPDX-License-Identifier: Apache-2.0
"""A service whose bridge br0 has no flows to begin with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.unit.control.fakes import Switch


@pytest_asyncio.fixture
async def switch(tmp_path: Path) -> AsyncIterator[Switch]:
    made = Switch(tmp_path)
    await made.begin()
    yield made
    await made.service.close()

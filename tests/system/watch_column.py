# SPDX-License-Identifier: Apache-2.0
"""A program: watch_column.py REMOTE TABLE COLUMN prints a line for each change of it."""

import asyncio
import sys

from heliograph.ovsdb.client import Client


async def watch(remote: str, table: str, column: str) -> None:
    """Until the connection ends; the first line says that it watches."""
    client = await Client.connect(remote)
    await client.monitor({table: [column]}, lambda: print("changed", flush=True))
    print("watching", flush=True)
    await client.closed


asyncio.run(watch(*sys.argv[1:4]))

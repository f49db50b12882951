# SPDX-License-Identifier: Apache-2.0
"""The two long-running processes, until SIGTERM or SIGINT."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path


async def _until_signalled(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(stop)


def database(rundir: Path, dbfile: Path | None, also: Sequence[Path]) -> None:
    """Serve RUNDIR/db.sock and `also`; `dbfile` None keeps the rows in memory only."""
    from heliograph.ovsdb import server  # noqa: PLC0415

    asyncio.run(
        _until_signalled(lambda stop: server.serve(rundir, dbfile, extra_sockets=also, stop=stop))
    )


def switch(remote: str, rundir: Path, ephemeral: bool) -> None:
    """Keep the data plane equal to the rows of `remote`; prints `ready` when it is, once."""
    from heliograph.cli import environment  # noqa: PLC0415
    from heliograph.switch import process  # noqa: PLC0415

    environment.check(rundir, ephemeral)  # not everyone starts it by `helio run`
    asyncio.run(
        _until_signalled(
            lambda stop: process.run(db=remote, rundir=rundir, ephemeral=ephemeral, stop=stop)
        )
    )

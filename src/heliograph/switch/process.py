# SPDX-License-Identifier: Apache-2.0
"""The switch as a process: its beginning on what is pinned, its end, and taking it all down."""

import asyncio
import gc
import logging
import os
import shutil
from pathlib import Path

from heliograph.errors import EnvironmentFaultError, HeliographError
from heliograph.kernel import bpffs
from heliograph.kernel.dataplane import DataPlane, linked_devices, other_namespace
from heliograph.kernel.devices import Devices, is_far_end
from heliograph.kernel.routes import Routes
from heliograph.switch.agent import Agent
from heliograph.switch.restores import Restores, put_back
from heliograph.switch.wire import SEGMENTER

log = logging.getLogger(__name__)

# A hundred thousand flows are millions of objects without cycles: to look through all of them as
# often as by default would take as long as adding them, in pauses of half a second.
_COLLECT = 50_000, 50, 1000


async def run(*, db: str, rundir: Path, ephemeral: bool, stop: asyncio.Event) -> None:
    """Be the switch on the database `db` ("unix:PATH") until `stop`.

    Prints "ready" when the first plan is live. The data plane goes on afterwards, unless
    `ephemeral`. Raises HeliographError and its kinds, and has then made nothing.
    """
    gc.set_threshold(*_COLLECT)
    if not rundir.is_dir():
        raise EnvironmentFaultError(f"the run directory {rundir} is not there: make it")
    root = rundir / "bpf"
    fresh = bpffs.mount(root)
    lock = bpffs.hold(root)
    try:
        try:
            plane = DataPlane.open(root)
        except (HeliographError, OSError) as error:
            if fresh:
                bpffs.unmount(root)
            if isinstance(error, HeliographError):
                raise
            raise EnvironmentFaultError(
                f"the data plane below {root} cannot be opened: {error}"
            ) from error
        try:
            async with Devices() as devices, Routes() as routes:
                await Agent(db, plane, devices, routes, rundir).run(stop)
        finally:
            plane.close()
            if ephemeral:
                for line in await _undo(rundir):
                    log.info("%s", line)
    finally:
        os.close(lock)


async def _teardown(rundir: Path) -> list[str]:
    root = rundir / "bpf"
    if not bpffs.is_mounted(root):
        return await _undo(rundir)
    lock = bpffs.hold(root)
    try:
        other = other_namespace(root)
        if other:
            raise HeliographError(
                f"the data plane of {rundir} works in another network namespace ({other}): "
                "run helio teardown there"
            )
        return await _undo(rundir)
    finally:
        os.close(lock)


async def _undo(rundir: Path) -> list[str]:
    root = rundir / "bpf"
    lines: list[str] = []
    restores = Restores(rundir / "devices.json")
    async with Devices() as devices:
        linked = linked_devices(root)
        linked |= {devices.by_name[n].ifindex for n in restores.making if n in devices.by_name}
        ours = [i for i in linked if i in devices.by_index and is_far_end(devices.by_index[i])]
        lines += sorted({_deed(devices, ifindex) for ifindex in ours})
        if ours:
            await devices.delete(*ours)
        for found in restores:
            try:
                await put_back(devices, found)
                lines.append(f"device {found.restore.name} put back as it was found")
            except HeliographError as error:
                lines.append(f"device {found.restore.name} was not put back: {error}")
    if bpffs.unmount(root):
        lines.append(f"data plane below {root} removed")
    (rundir / "devices.json").unlink(missing_ok=True)
    if (rundir / "flows").is_dir():
        shutil.rmtree(rundir / "flows")
        lines.append("flows forgotten")
    for socket in rundir.glob("*.mgmt"):
        socket.unlink()
    return lines


def _deed(devices: Devices, ours: int) -> str:
    """What the deletion of one of our devices is called."""
    device = devices.by_index[ours]
    if device.alias == SEGMENTER:
        return "segmenter deleted"
    user = devices.by_index.get(device.peer)
    return f"internal port {user.name if user else device.name} deleted"


def teardown(rundir: Path) -> list[str]:
    """Remove devices, programs, pins and the bpffs; put devices back as found.

    Returns what was done, a line each. Raises HeliographError and its kinds.
    """
    return asyncio.run(_teardown(rundir))

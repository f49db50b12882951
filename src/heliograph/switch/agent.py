# SPDX-License-Identifier: Apache-2.0
"""The switch's process: database and device events in, passes of plan and reconcile, rows out.

One pass takes everything as it stands, so events only say that another is due. The data plane
forwards whatever happens here: a lost database connection, a failing pass, the end of the process.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel import bpffs
from heliograph.kernel.dataplane import DataPlane, linked_devices, other_namespace
from heliograph.kernel.devices import Device, Devices, is_far_end
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.errors import TransactionError
from heliograph.ovsdb.replica import Replica
from heliograph.switch import feedback, intent, plan
from heliograph.switch.feedback import Feedback
from heliograph.switch.reconcile import Reconciler, Restores

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (0.1, 5.0)
SWEEP_SECONDS = 5.0


class Agent:
    """One switch on one database."""

    def __init__(self, remote: str, plane: DataPlane, devices: Devices, rundir: Path) -> None:
        self._remote = remote
        self._plane = plane
        self._devices = devices
        self._reconciler = Reconciler(plane, devices, rundir)
        self._due = asyncio.Event()
        self._plan = plan.Plan()
        self._intent = intent.Intent()
        self._ports: dict[UUID, feedback.Port] = {}
        self._facts: dict[UUID, Device] = {}
        self._ready = False
        devices.on_change = lambda names: self._due.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; a database that is away is waited for."""
        stopping = asyncio.ensure_future(stop.wait())
        delay = BACK_OFF_SECONDS[0]
        while not stop.is_set():
            try:
                client = await Client.connect(self._remote)
            except HeliographError as error:
                log.warning("database: %s; trying again in %.1f s", error, delay)
                await asyncio.wait({stopping}, timeout=delay)
                delay = min(delay * 2, BACK_OFF_SECONDS[1])
                continue
            delay = BACK_OFF_SECONDS[0]
            try:
                await self._serve(client, stopping)
            except (HeliographError, OSError) as error:
                log.warning("database: %s", error)
                await asyncio.wait({stopping}, timeout=delay)
            finally:
                await client.close()

    async def _serve(self, client: Client, stopping: "asyncio.Future[Any]") -> None:
        schema = await client.get_schema()
        tables = {
            table: [column for column in columns if column in schema.tables[table].columns]
            for table, columns in intent.COLUMNS.items()
        }
        replica = await client.monitor(tables, self._due.set)
        teller = Feedback(replica, self._plane.counters)
        work = {
            asyncio.ensure_future(self._follow(client, replica, teller)),
            asyncio.ensure_future(self._report(client, teller)),
            asyncio.ensure_future(self._sweep()),
        }
        try:
            done, _ = await asyncio.wait(
                {*work, stopping, client.closed}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done & work:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _follow(self, client: Client, replica: Replica, teller: Feedback) -> None:
        self._due.set()
        loop = asyncio.get_running_loop()
        while True:
            await self._due.wait()
            self._due.clear()
            waiting = await self._pass(client, replica, teller)
            if waiting:
                loop.call_later(feedback.PROBLEM_INTERVAL, self._due.set)
            if not self._ready:
                self._ready = True
                print("ready", flush=True)

    async def _pass(self, client: Client, replica: Replica, teller: Feedback) -> bool:
        """Bring everything up to date; returns whether some row must be written a little later."""
        config = next((r["next_cfg"] for r in replica.tables["Open_vSwitch"].values()), 0)
        self._intent = intent.read(replica)
        wanted = plan.devices(self._intent)
        present, errors = await self._reconciler.prepare(wanted)
        planned = plan.plan(self._intent, present, errors, self._reconciler.slots)
        for uuid, text in self._reconciler.apply(planned, present).items():
            planned.errors[uuid] = text
        await self._reconciler.release(present)
        self._log_changes(planned)
        self._plan = planned
        await self._look(present)
        now = asyncio.get_running_loop().time()
        operations, waiting = teller.explain(self._intent, planned, self._ports, config, now)
        if operations:
            await self._write(client, operations)
        return waiting

    async def _write(self, client: Client, operations: list[feedback.Operation]) -> None:
        try:
            await client.transact(operations)
        except TransactionError as error:
            # Rows changed under us; their update is on its way and brings another pass.
            log.warning("writing to the database failed: %s", error)

    async def _look(self, present: Mapping[UUID, Device]) -> None:
        """Take in the facts of the working ports' devices, as their users see them."""
        ports: dict[UUID, feedback.Port] = {}
        for uuid, number in self._plan.ports.items():
            device = present[uuid]
            known = self._ports.get(uuid)
            if known and known.device == device and known.number == number:
                ports[uuid] = known
                if not device.peer_elsewhere and known.user:
                    user = self._devices.by_index.get(known.user.ifindex)
                    ports[uuid] = feedback.Port(number, device, user)
            elif is_far_end(device):
                user = await self._devices.user_end(device.ifindex)
                ports[uuid] = feedback.Port(number, device, user)
            else:
                ports[uuid] = await self._existing(number, device)
        self._ports = ports

    async def _existing(self, number: int, device: Device) -> feedback.Port:
        try:
            info = await self._devices.link_info(device.ifindex)
        except HeliographError:
            return feedback.Port(number, device, None)  # gone meanwhile; its event is on its way
        return feedback.Port(number, device, None, info.speed_bps, info.duplex)

    def _log_changes(self, fresh: plan.Plan) -> None:
        """A change of a row's state is logged once."""
        names = {
            row.uuid: f"{kind} {row.name}"
            for bridge in self._intent.bridges
            for kind, rows in (
                ("bridge", (bridge,)),
                ("port", bridge.ports),
                ("interface", tuple(i for p in bridge.ports for i in p.interfaces)),
                ("mirror", bridge.mirrors),
            )
            for row in rows
        }
        old = self._plan.errors | self._plan.problems
        new = fresh.errors | fresh.problems
        for uuid in new.keys() | old.keys():
            if old.get(uuid) == new.get(uuid) or uuid not in names:
                continue
            if uuid in new:
                log.warning("%s: %s", names[uuid], new[uuid])
            else:
                log.info("%s: works now", names[uuid])

    async def _report(self, client: Client, teller: Feedback) -> None:
        while True:
            await asyncio.sleep(self._intent.stats_interval / 1000)
            operations = teller.statistics(self._plan, self._ports, await self._devices.stats())
            if operations:
                await self._write(client, operations)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            bridges = dict(self._reconciler.bridges)
            await asyncio.to_thread(self._plane.fdb.sweep, bridges)


async def run(*, db: str, rundir: Path, ephemeral: bool, stop: asyncio.Event) -> None:
    """Be the switch on the database `db` ("unix:PATH") until `stop`.

    Prints "ready" when the first plan is live. The data plane goes on afterwards, unless
    `ephemeral`. Raises HeliographError and its kinds.
    """
    bpffs.mount(rundir / "bpf")
    plane = DataPlane.open(rundir / "bpf")
    try:
        async with Devices() as devices:
            await Agent(db, plane, devices, rundir).run(stop)
    finally:
        plane.close()
        if ephemeral:
            for line in await _teardown(rundir):
                log.info("%s", line)


async def _teardown(rundir: Path) -> list[str]:
    root = rundir / "bpf"
    other = other_namespace(root) if root.exists() else None
    if other:
        raise HeliographError(
            f"the data plane of {rundir} works in another network namespace ({other}): "
            "run helio teardown there"
        )
    lines: list[str] = []
    linked = linked_devices(root)
    restores = Restores(rundir / "devices.json")
    async with Devices() as devices:
        ours = [i for i in linked if i in devices.by_index and is_far_end(devices.by_index[i])]
        names = []
        for ifindex in ours:
            user = devices.by_index.get(devices.by_index[ifindex].peer)
            names.append(user.name if user else devices.by_index[ifindex].name)
        if ours:
            await devices.delete(*ours)
        lines += [f"internal port {name} deleted" for name in sorted(names)]
        for restore in restores:
            await devices.release(restore)
            restores.drop(restore.ifindex)
            lines.append(f"device {restore.name} put back as it was found")
    if bpffs.unmount(root):
        lines.append(f"data plane below {root} removed")
    (rundir / "devices.json").unlink(missing_ok=True)
    return lines


def teardown(rundir: Path) -> list[str]:
    """Remove devices, programs, pins and the bpffs; put devices back as found.

    Returns what was done, a line each. Raises HeliographError and its kinds.
    """
    return asyncio.run(_teardown(rundir))

# SPDX-License-Identifier: Apache-2.0
"""The switch's process: database and device events in, passes of plan and reconcile, rows out.

One pass takes everything as it stands, so events only say that another is due. Passes go on with
the rows last known while the database is away, and telling it never holds them up. The data plane
forwards whatever happens here: a lost connection, a failing pass, the end of the process.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel.counters import Counts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Devices
from heliograph.kernel.routes import Routes
from heliograph.log import Chatter
from heliograph.openflow.errors import OpenFlowError
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.replica import Replica
from heliograph.switch import explain, feedback, intent, plan, wanted
from heliograph.switch.feedback import Feedback
from heliograph.switch.macs import MacKeeper
from heliograph.switch.openflow import OpenFlow
from heliograph.switch.pace import BACK_OFF_SECONDS, BackOff, Pace
from heliograph.switch.reconcile import Reconciler
from heliograph.switch.refusals import Refusals
from heliograph.switch.restores import Restores
from heliograph.switch.sight import Sight
from heliograph.switch.underlay import Underlay
from heliograph.switch.users import Users

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 5.0
# Between transactions that no configuration change waits for.
TELL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to the database."""

    client: Client
    replica: Replica
    teller: Feedback


@dataclass(frozen=True, slots=True)
class State:
    """What the last pass put in force; `config` is the next_cfg of the rows, which came over
    `session`."""

    config: int = 0
    rows: intent.Intent = field(default_factory=intent.Intent)
    planned: plan.Plan = field(default_factory=plan.Plan)
    ports: Mapping[UUID, feedback.Port] = field(default_factory=dict)
    session: Session | None = None


class Agent:
    """One switch on one database."""

    def __init__(
        self,
        remote: str,
        plane: DataPlane,
        devices: Devices,
        routes: Routes,
        rundir: Path,
    ) -> None:
        self._remote = remote
        self._plane = plane
        self._devices = devices
        self._reconciler = Reconciler(plane, devices, Restores(rundir / "devices.json"))
        self._session: Session | None = None
        self._state: State | None = None
        self._due = asyncio.Event()
        self._untold = asyncio.Event()
        self._retimed = asyncio.Event()
        self._chatter = Chatter()
        self._pace = Pace(self._due)
        self._users = Users(devices)
        self._macs = MacKeeper(plane.fdb, self._due.set)
        self._refusals = Refusals()
        self._underlay = Underlay(routes, devices, self._pace.stir)
        self._sight = Sight(devices, self._users, self._underlay)
        self._openflow = OpenFlow(
            rundir,
            plane,
            devices,
            self._reconciler,
            stir=self._due.set,
            tell=self._untold.set,
        )
        devices.on_change = lambda names: self._pace.stir()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; a database that is away is waited for."""
        work = [
            asyncio.ensure_future(job)
            for job in (
                self._stay_connected(),
                self._follow(),
                self._tell(),
                self._report(),
                self._keep_macs(),
                self._keep_flows(),
                stop.wait(),
            )
        ]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # only a bug ends one of them: its traceback ends the process
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._openflow.close()

    def _complain(self, what: str, error: Exception) -> None:
        """Log a failure, a repeated one at most once a minute."""
        text = f"{what}: {error}"
        count = self._chatter.repeated(text, asyncio.get_running_loop().time())
        if count:
            log.warning("%s%s", text, f" ({count} times)" if count > 1 else "")

    async def _stay_connected(self) -> None:
        back_off = BackOff()
        while True:
            try:
                async with await Client.connect(self._remote, timeout=CONNECT_SECONDS) as client:
                    self._session = await self._begin(client)
                    back_off.reset()
                    self._due.set()
                    await client.closed
                    raise HeliographError(f"{self._remote}: the connection was lost")
            except HeliographError as error:
                self._complain("database", error)
            finally:
                self._session = None
            await asyncio.sleep(back_off.next())

    async def _begin(self, client: Client) -> Session:
        schema = await client.get_schema()
        tables = {
            table: [column for column in columns if column in schema.tables[table].columns]
            for table, columns in intent.COLUMNS.items()
        }
        replica = await client.monitor(tables, self._due.set)
        return Session(client, replica, Feedback(replica))

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        back_off = BackOff()
        again: asyncio.TimerHandle | None = None
        while True:
            await self._due.wait()
            self._due.clear()
            if self._session is None and self._state is None:
                continue  # nothing is known yet; what an earlier process set up goes on
            self._pace.begin()
            try:
                whole = await self._pass()
            except (HeliographError, OSError) as error:
                self._complain("the configuration could not be put in force, trying again", error)
                whole = False
            self._pace.end()
            if again:
                again.cancel()
            if whole:
                back_off.reset()
            # What is wrong may be mended where no event tells us: in another namespace, say.
            wrong = self._state and (self._state.planned.errors or self._state.planned.problems)
            delay = back_off.next() if not whole else LOOK_AGAIN_SECONDS if wrong else None
            again = loop.call_later(delay, self._due.set) if delay else None

    async def _pass(self) -> bool:
        """Put the rows as they stand in force; returns whether the kernel took all of it."""
        old = self._state or State()
        config, rows, session = old.config, old.rows, old.session
        if self._session:
            session = self._session
            roots = session.replica.tables["Open_vSwitch"].values()
            config = next((root["next_cfg"] for root in roots), 0)
            rows = intent.read(session.replica)
        needed = wanted.devices(rows, flows=self._openflow.uses_tables)
        prepared = await self._reconciler.prepare(needed)
        present = prepared.present
        users = await self._sight.users(present)
        network = await self._sight.network(needed, present)
        facts = plan.Facts(present, prepared.errors, users, prepared.segmenter, network)
        planned = plan.plan(rows, facts, self._reconciler.slots)
        if prepared.segmenter_fault:
            for uuid in needed.cut:
                text = f"cuts only the first segment of super-frames: {prepared.segmenter_fault}"
                planned.complain(uuid, text)
        for port, text in prepared.remarks.items():
            planned.complain(port, text)
        ports = await self._sight.ports(old.ports, planned, facts)
        await self._openflow.configure(rows, planned, ports)
        self._openflow.complete(planned)
        if self._openflow.uses_tables != needed.flows:
            self._due.set()  # what flows need is prepared in the next pass
        faults = self._reconciler.apply(planned, present)
        self._openflow.release(planned)
        explain.faults(faults, rows, planned)
        self._macs.configure(self._reconciler.bridges)
        self._macs.complain(rows, planned)
        self._refusals.complain(rows, planned, network)
        await self._reconciler.release(needed, present)
        ports = {u: port for u, port in ports.items() if port.tunnel or u not in faults}
        explain.changes(old.planned, rows, planned)
        self._state = State(config, rows, planned, ports, session)
        if rows.stats_interval != old.rows.stats_interval:
            self._retimed.set()  # a shorter one does not wait for the longer one to pass
        self._untold.set()
        return not faults

    async def _tell(self) -> None:
        """Write what the last pass found, and say "ready" after the first time."""
        loop = asyncio.get_running_loop()
        back_off = BackOff()
        ready = False
        last = -TELL_SECONDS
        while True:
            await self._untold.wait()
            self._untold.clear()
            session, state = self._session, self._state
            if session is None or state is None or state.session is not session:
                continue  # the pass that follows a new connection tells everything
            if loop.time() - last < TELL_SECONDS and not session.teller.owes(state.config):
                loop.call_at(last + TELL_SECONDS, self._untold.set)
                continue
            last = loop.time()
            operations: list[feedback.Operation] | None = None
            waiting = False
            try:
                counts = await self._count(*session.teller.uncounted(state.planned, state.ports))
                operations, waiting = session.teller.explain(
                    state.rows,
                    state.planned,
                    state.ports,
                    counts,
                    self._openflow.status(),
                    config=state.config,
                    now=loop.time(),
                )
            except OSError as error:
                session.teller.forget()
                self._complain("counters cannot be read", error)
            if operations is None or not await self._write(session, operations):
                loop.call_later(back_off.next(), self._untold.set)
            else:
                back_off.reset()
                if waiting:
                    loop.call_later(feedback.PROBLEM_INTERVAL, self._untold.set)
            if not ready:
                ready = True
                print("ready", flush=True)

    async def _count(self, ports: Collection[int], mirrors: Collection[int]) -> Counts:
        if not ports and not mirrors:
            return Counts({}, {})
        return await asyncio.to_thread(self._plane.counters.read, ports, mirrors)

    async def _write(self, session: Session, operations: list[feedback.Operation]) -> bool:
        if not operations:
            return True
        try:
            await session.client.transact(operations)
        except HeliographError as error:
            session.teller.forget()
            self._complain("writing to the database failed", error)
            return False
        return True

    async def _report(self) -> None:
        while True:
            interval = self._state.rows.stats_interval if self._state else 1000
            with contextlib.suppress(TimeoutError):
                # Not wait_for: one that is cancelled just when it ends goes on (Python 3.11).
                async with asyncio.timeout(interval / 1000):
                    await self._retimed.wait()
            self._retimed.clear()
            try:
                if await self._users.refresh():
                    self._due.set()
                devices = await self._devices.stats()
                known = self._state or State()
                numbers = [port.number for port in known.ports.values()]
                counts = await self._count(numbers, known.planned.slots.mirrors.values())
                if self._refusals.take_in(known.planned, counts):
                    self._due.set()
                session, state = self._session, self._state
                if session and state:
                    teller = session.teller
                    operations = teller.statistics(
                        state.planned, state.ports, counts, devices, self._openflow.status()
                    )
                    await self._write(session, operations)
            except (HeliographError, OSError) as error:
                self._complain("statistics", error)

    async def _keep_macs(self) -> None:
        while True:
            try:
                await self._macs.run()
            except OSError as error:
                self._complain("the MAC table could not be looked after", error)
                await asyncio.sleep(BACK_OFF_SECONDS[1])

    async def _keep_flows(self) -> None:
        while True:
            try:
                await self._openflow.run()
            except (OpenFlowError, OSError) as error:
                self._complain("flows could not be looked after", error)

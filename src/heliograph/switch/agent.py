# SPDX-License-Identifier: Apache-2.0
"""The switch's process: database and device events in, passes of plan and reconcile, rows out.

One pass takes everything as it stands, so events only say that another is due. Passes go on with
the rows last known while the database is away, and telling it never holds them up. The data plane
forwards whatever happens here: a lost connection, a failing pass, the end of the process.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from heliograph.errors import HeliographError
from heliograph.kernel.counters import Counts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Device, Devices, is_far_end
from heliograph.kernel.routes import Address, Routes
from heliograph.log import Chatter
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.replica import Replica
from heliograph.switch import feedback, intent, plan, wanted
from heliograph.switch.encapsulation import Network
from heliograph.switch.feedback import Feedback
from heliograph.switch.macs import MacKeeper
from heliograph.switch.reconcile import Reconciler
from heliograph.switch.refusals import Refusals
from heliograph.switch.restores import Restores
from heliograph.switch.underlay import Underlay, Wish
from heliograph.switch.users import Users

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (0.1, 5.0)
CONNECT_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 5.0
# Between transactions that no configuration change waits for.
TELL_SECONDS = 0.1
# That a new tunnel's neighbour has to answer before the tunnel is called done.
SETTLE_SECONDS = 0.05
# After a pass, devices that change wait for so many times its duration: a host where they change
# all the time costs a fifth of a processor at most.
REST = 4


class BackOff:
    """How long to wait after each failure in a row, in seconds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """It worked."""
        self._delay = BACK_OFF_SECONDS[0]

    def next(self) -> float:
        """It failed once more."""
        delay, self._delay = self._delay, min(self._delay * 2, BACK_OFF_SECONDS[1])
        return delay


class Pace:
    """Makes a pass due when devices have changed, after the rest that the last pass has earned."""

    def __init__(self, due: asyncio.Event) -> None:
        self._due = due
        self._began: float | None = None
        self._rested = 0.0
        self._stirred = False
        self._wake: asyncio.TimerHandle | None = None

    def stir(self) -> None:
        """Devices have changed."""
        loop = asyncio.get_running_loop()
        if self._began is not None:
            self._stirred = True
        elif self._wake is None:
            self._wake = loop.call_at(max(self._rested, loop.time()), self._due.set)

    def begin(self) -> None:
        """A pass begins; it takes in what has changed until now."""
        self._began = asyncio.get_running_loop().time()
        self._stirred = False
        if self._wake:
            self._wake.cancel()
            self._wake = None

    def end(self) -> None:
        """It has ended."""
        now = asyncio.get_running_loop().time()
        self._rested = now + REST * (now - (self._began or now))
        self._began = None
        if self._stirred:
            self.stir()


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
        restores: Restores,
    ) -> None:
        self._remote = remote
        self._plane = plane
        self._devices = devices
        self._reconciler = Reconciler(plane, devices, restores)
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
        needed = wanted.devices(rows)
        prepared = await self._reconciler.prepare(needed)
        present = prepared.present
        users = await self._see_users(present)
        network = await self._see_network(needed, present)
        facts = plan.Facts(present, prepared.errors, users, prepared.segmenter, network)
        planned = plan.plan(rows, facts, self._reconciler.slots)
        if prepared.segmenter_fault:
            for uuid in needed.cut:
                text = f"cuts only the first segment of super-frames: {prepared.segmenter_fault}"
                planned.complain(uuid, text)
        for port, text in prepared.remarks.items():
            planned.complain(port, text)
        faults = self._reconciler.apply(planned, present)
        self._explain_faults(faults, rows, planned)
        self._macs.configure(self._reconciler.bridges)
        self._macs.complain(rows, planned)
        self._refusals.complain(rows, planned, network)
        await self._reconciler.release(needed, present)
        ports = await self._look(old.ports, planned, facts)
        self._log_changes(old, rows, planned)
        self._state = State(config, rows, planned, ports, session)
        if rows.stats_interval != old.rows.stats_interval:
            self._retimed.set()  # a shorter one does not wait for the longer one to pass
        self._untold.set()
        return not faults

    async def _see_network(
        self, needed: wanted.DevicePlan, present: Mapping[UUID, Device]
    ) -> Network:
        """The ways of the tunnels; those that are new wait a moment for their neighbours."""
        wishes = {
            uuid: Wish(tunnel.remote, tunnel.local, tunnel.tos or 0, tunnel.family)
            for uuid, tunnel in needed.tunnels.items()
        }
        self._underlay.paths(wishes)
        await self._underlay.settle(SETTLE_SECONDS)
        paths = self._underlay.paths(wishes)
        ports = {device.ifindex for device in present.values()}
        reception = self._underlay.receivers(wishes, ports)
        by_index = self._devices.by_index
        return Network(
            needed.tunnels,
            paths,
            {u: by_index[path.ifindex] for u, path in paths.items() if path.ifindex in by_index},
            frozenset[Address]().union(*reception.addresses.values()),
            reception.devices if wishes else frozenset(),
            round(time.clock_gettime(time.CLOCK_TAI) - time.time()) if wishes else 0,
            frozenset(device.kind for device in by_index.values()),
        )

    async def _see_users(self, present: Mapping[UUID, Device]) -> dict[UUID, Device]:
        users = {
            uuid: await self._users.end_of(device)
            for uuid, device in present.items()
            if device.kind == "veth"
        }
        return {uuid: user for uuid, user in users.items() if user}

    async def _look(
        self,
        old: Mapping[UUID, feedback.Port],
        planned: plan.Plan,
        facts: plan.Facts,
    ) -> dict[UUID, feedback.Port]:
        """The facts of the working ports' devices, as their users see them."""
        ports = {
            uuid: feedback.Port(number, None, None) for uuid, number in planned.patches.items()
        }
        for uuid, number in planned.tunnels.items():
            egress = facts.network.egress.get(uuid)
            receiving = facts.network.tunnels[uuid].remote is None
            ports[uuid] = feedback.Port(
                number, None, None, tunnel=True, egress=egress, receiving=receiving
            )
        for uuid, number in planned.ports.items():
            device = facts.present[uuid]
            known = old.get(uuid)
            if uuid in planned.errors:
                continue
            if is_far_end(device):
                ports[uuid] = feedback.Port(number, device, facts.users.get(uuid))
            elif known and known.device == device and known.number == number:
                ports[uuid] = known
            else:
                ports[uuid] = await self._existing(number, device)
        return ports

    async def _existing(self, number: int, device: Device) -> feedback.Port:
        try:
            info = await self._devices.link_info(device.ifindex)
        except HeliographError:
            return feedback.Port(number, device, None)  # gone meanwhile; its event is on its way
        return feedback.Port(number, device, None, info.speed_bps, info.duplex)

    @staticmethod
    def _explain_faults(
        faults: Mapping[UUID, str], rows: intent.Intent, planned: plan.Plan
    ) -> None:
        """What the kernel refused, by Bridge or Interface row, on every row that it concerns."""
        for bridge in rows.bridges:
            refused = faults.get(bridge.uuid)
            outputs = {
                port.uuid: faults[interface.uuid]
                for port in bridge.ports
                for interface in port.interfaces
                if interface.uuid in faults
            }
            if refused:
                planned.complain(bridge.uuid, refused)
            for mirror in bridge.mirrors:
                if refused:
                    planned.complain(mirror.uuid, f"is not in force as it stands here: {refused}")
                if mirror.output_port in outputs:
                    fault = outputs[mirror.output_port]
                    planned.complain(mirror.uuid, f"its output does not work: {fault}")
        planned.errors.update({r: text for r, text in faults.items() if r not in planned.bridges})

    @staticmethod
    def _log_changes(state: State, rows: intent.Intent, fresh: plan.Plan) -> None:
        """A change of a row's state is logged once."""
        names = {
            row.uuid: f"{kind} {row.name}"
            for bridge in rows.bridges
            for kind, rows_of_kind in (
                ("bridge", (bridge,)),
                ("port", bridge.ports),
                ("interface", tuple(i for p in bridge.ports for i in p.interfaces)),
                ("mirror", bridge.mirrors),
            )
            for row in rows_of_kind
        }
        old = state.planned.errors | state.planned.problems
        new = fresh.errors | fresh.problems
        for uuid in new.keys() | old.keys():
            if old.get(uuid) == new.get(uuid) or uuid not in names:
                continue
            if uuid in new:
                log.warning("%s: %s", names[uuid], new[uuid])
            else:
                log.info("%s: works now", names[uuid])

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
                    operations = teller.statistics(state.planned, state.ports, counts, devices)
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

# SPDX-License-Identifier: Apache-2.0
"""The switch's process on a real database, with the kernel played."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from tests.unit.switch.conftest import device
from tests.unit.waiting import PATIENCE, rest, until
from tools.lab.processes import answers

from heliograph.errors import HeliographError
from heliograph.kernel.counters import Counts
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Devices
from heliograph.kernel.routes import Address, Route, Routes
from heliograph.ovsdb import server
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.errors import TransactionError
from heliograph.switch import agent
from heliograph.switch.reconcile import Prepared
from heliograph.switch.slots import Slots

REST = 0.08  # seconds that a pass of 0.02 has earned
NEAR = ip_address("192.0.2.2")


class Kernel:
    """Stands for the Reconciler: `faults` are raised or returned, one a pass."""

    def __init__(self) -> None:
        self.faults: list[Any] = []
        self.passes = 0
        self.duration = 0.0  # seconds that a pass takes
        self.slots = Slots()
        self.bridges: dict[int, Any] = {}

    async def prepare(self, wanted: Any) -> Prepared:
        await asyncio.sleep(self.duration)
        return Prepared(errors=dict(wanted.errors))

    def apply(self, plan: Any, present: Any) -> dict[Any, str]:
        self.passes += 1
        fault = self.faults.pop(0) if self.faults else {}
        if isinstance(fault, BaseException):
            raise fault
        return cast("dict[Any, str]", fault)

    async def release(self, wanted: Any, present: Any) -> None:
        pass


class Tables:
    """Stands for OpenFlow, which nobody speaks."""

    uses_tables = False

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass

    async def configure(self, rows: Any, planned: Any, ports: Any) -> None:
        pass

    def complete(self, planned: Any) -> None:
        pass

    def release(self, planned: Any) -> None:
        pass

    def status(self) -> dict[UUID, Any]:
        return {}


class Network:
    """Stands for the kernel's routes: all that is elsewhere is reached by device 9, or nothing."""

    def __init__(self) -> None:
        self.addresses = {9: frozenset({NEAR})}
        self.on_change: Callable[[], None] = lambda: None
        self.fault: str | None = None

    def lookup(self, remote: Address, local: Address | None, tos: int) -> Route:
        if self.fault:
            raise HeliographError(self.fault)
        return Route(9, remote, NEAR, 1500)

    def resolved(self, ifindex: int, hop: Address) -> bool:
        return True

    def forget(self, ifindex: int, hop: Address) -> None:
        pass


class Scene:
    """A running agent, and a client of its database."""

    def __init__(
        self,
        kernel: Kernel,
        client: Client,
        devices: Devices,
        network: Network,
        running: "asyncio.Task[None]",
    ) -> None:
        self.kernel, self.client, self.devices, self.running = kernel, client, devices, running
        self.network = network

    async def configure(self) -> None:
        """Raise next_cfg, as ovs-vsctl does."""
        mutation = [["next_cfg", "+=", 1]]
        where: list[Any] = []
        await self.client.transact(
            [{"op": "mutate", "table": "Open_vSwitch", "where": where, "mutations": mutation}]
        )

    async def applied(self) -> bool:
        """Whether cur_cfg is next_cfg."""
        (result,) = await self.client.transact(
            [{"op": "select", "table": "Open_vSwitch", "where": []}]
        )
        (root,) = result["rows"]
        return bool(root["cur_cfg"] == root["next_cfg"])


async def eventually(condition: Callable[[], Awaitable[bool]]) -> bool:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.01)
    return True


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    kernel = Kernel()
    monkeypatch.setattr(agent, "Reconciler", lambda *_: kernel)
    monkeypatch.setattr(agent, "OpenFlow", lambda *_, **__: Tables())
    stop, end = asyncio.Event(), asyncio.Event()
    database = asyncio.create_task(server.serve(tmp_path, None, extra_sockets=[], stop=end))
    socket = tmp_path / "db.sock"
    await until(lambda: answers(socket))
    remote = f"unix:{socket}"

    async def stats() -> dict[int, Any]:
        return {}

    fdb = SimpleNamespace(sweep=lambda bridges: iter(()), flap=lambda slot: None)
    counters = SimpleNamespace(read=lambda ports, mirrors: Counts({}, {}))
    plane = cast("DataPlane", SimpleNamespace(counters=counters, fdb=fdb))
    by_index = {9: device(9, "eth9", kind="")}
    devices = cast("Devices", SimpleNamespace(on_change=None, stats=stats, by_index=by_index))
    network = Network()
    routes = cast("Routes", network)
    async with await Client.connect(remote) as client:
        await client.transact([{"op": "insert", "table": "Open_vSwitch", "row": {}}])
        made = agent.Agent(remote, plane, devices, routes, tmp_path)
        running = asyncio.create_task(made.run(stop))
        yield Scene(kernel, client, devices, network, running)
        stop.set()
        await asyncio.wait({running})
    end.set()
    await database


async def test_ready_is_said_once_and_cur_cfg_follows(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        await scene.configure()
        assert await eventually(scene.applied)
    assert capsys.readouterr().out == "ready\n"


async def test_a_failing_pass_is_retried_with_back_off_and_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.configure()
    assert await eventually(scene.applied)
    await rest(0.05)  # what that transaction itself brings about is over
    caplog.clear()
    scene.kernel.faults = [OSError(12, "Cannot allocate memory")] * 3
    before = scene.kernel.passes
    began = asyncio.get_running_loop().time()
    await scene.configure()
    assert await eventually(scene.applied)
    assert asyncio.get_running_loop().time() - began > 0.1 + 0.2 + 0.4 - 0.1, "no back-off"
    assert scene.kernel.passes - before <= 6, "it spins"
    said = [record for record in caplog.records if "could not be put in force" in record.message]
    assert len(said) == 1 and said[0].levelno == logging.WARNING
    assert not scene.running.done()


async def test_departure_1_what_the_kernel_refuses_is_told_on_the_bridges_mirrors_too(
    scene: Scene,
) -> None:
    """A mirror that is not in force is not silently off; when the kernel takes it, no more."""
    rows: list[Any] = [
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "p0"}},
        {"op": "insert", "table": "Port", "uuid-name": "p",
         "row": {"name": "p0", "interfaces": ["named-uuid", "i"]}},
        {"op": "insert", "table": "Mirror", "uuid-name": "m", "row": {"name": "m0"}},
        {"op": "insert", "table": "Bridge", "uuid-name": "b",
         "row": {"name": "br0", "ports": ["named-uuid", "p"], "mirrors": ["named-uuid", "m"]}},
        {"op": "mutate", "table": "Open_vSwitch", "where": [],
         "mutations": [["bridges", "insert", ["named-uuid", "b"]]]},
    ]  # fmt: skip
    await scene.client.transact(rows)

    async def told(table: str) -> str:
        (result,) = await scene.client.transact([{"op": "select", "table": table, "where": []}])
        return str(result["rows"][0]["external_ids"])

    (result,) = await scene.client.transact([{"op": "select", "table": "Bridge", "where": []}])
    bridge = UUID(result["rows"][0]["_uuid"][1])
    scene.kernel.faults = [{bridge: "the kernel refused it"}] * 1000
    await scene.configure()

    async def is_told() -> bool:
        return "kernel refused" in await told("Bridge") and "refused" in await told("Mirror")

    async def is_over() -> bool:
        return "refused" not in await told("Bridge") + await told("Mirror")

    assert await eventually(is_told)
    scene.kernel.faults = []
    await scene.configure()
    assert await eventually(is_over)


async def test_a_bug_ends_the_process_with_its_traceback(scene: Scene) -> None:
    await scene.configure()
    assert await eventually(scene.applied)
    scene.kernel.faults = [KeyError("bug")]
    await scene.configure()
    await asyncio.wait({scene.running}, timeout=PATIENCE)
    with pytest.raises(KeyError, match="bug"):
        scene.running.result()


@pytest.mark.parametrize("error", [TransactionError("timed out", "", 0), HeliographError("lost")])
async def test_what_the_database_refused_is_written_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: HeliographError
) -> None:
    await scene.configure()
    assert await eventually(scene.applied)
    transact = Client.transact
    refused: list[Any] = []

    async def once(self: Client, operations: Any, database: str = "Open_vSwitch") -> list[Any]:
        if self is not scene.client and not refused:
            refused.append(operations)
            raise error
        return await transact(self, operations, database)

    monkeypatch.setattr(Client, "transact", once)
    await scene.configure()
    assert await eventually(scene.applied)
    assert refused and not scene.running.done()


async def test_a_user_who_lowers_cur_cfg_gets_it_back(scene: Scene) -> None:
    await scene.configure()
    assert await eventually(scene.applied)
    operation = {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"cur_cfg": 0}}
    await scene.client.transact([operation])
    assert await eventually(scene.applied)


async def test_devices_that_change_all_the_time_leave_the_processor_alone(scene: Scene) -> None:
    await scene.configure()
    assert await eventually(scene.applied)
    scene.kernel.duration = 0.02
    before = scene.kernel.passes
    clock = asyncio.get_running_loop().time
    began = clock()
    while clock() < began + 0.5 or scene.kernel.passes < before + 2:
        scene.devices.on_change({"veth0"})
        await asyncio.sleep(0.002)
    passes = scene.kernel.passes - before
    assert passes <= 2 + (clock() - began) / (5 * scene.kernel.duration), passes
    # Again and again, for a machine that is busy elsewhere; a rest would be there each time.
    waits = [REST]
    while min(waits) >= REST and len(waits) < 50:
        scene.devices.on_change({"veth0"})
        began = clock()
        await scene.configure()
        assert await eventually(scene.applied)
        waits.append(clock() - began)
    assert min(waits) < REST, "configuration waits for no rest"


async def test_a_tunnels_way_is_told_and_told_again_when_it_is_another(scene: Scene) -> None:
    """With cur_cfg, and then without any change of the rows; departure D1."""
    options = ["map", [["remote_ip", "192.0.2.1"]]]
    columns = {"name": "gre0", "type": "gre", "options": options}
    await scene.client.transact(
        [
            {"op": "insert", "table": "Interface", "uuid-name": "i", "row": columns},
            {
                "op": "insert",
                "table": "Port",
                "uuid-name": "p",
                "row": {"name": "gre0", "interfaces": ["named-uuid", "i"]},
            },
            {
                "op": "insert",
                "table": "Bridge",
                "uuid-name": "b",
                "row": {"name": "br0", "ports": ["named-uuid", "p"]},
            },
            {
                "op": "mutate",
                "table": "Open_vSwitch",
                "where": [],
                "mutations": [
                    ["bridges", "insert", ["named-uuid", "b"]],
                    ["next_cfg", "+=", 1],
                ],
            },
        ]
    )

    async def row(table: str) -> dict[str, Any]:
        (result,) = await scene.client.transact([{"op": "select", "table": table, "where": []}])
        return dict(result["rows"][0])

    def told(interface: dict[str, Any]) -> tuple[Any, Any]:
        return interface["status"], interface["link_state"]

    way = ["map", [["tunnel_egress_iface", "eth9"], ["tunnel_egress_iface_carrier", "up"]]]
    assert await eventually(scene.applied)
    assert told(await row("Interface")) == (way, "up"), "with cur_cfg"
    assert (await row("Interface"))["ofport"] == 1

    async def lost() -> bool:
        return told(await row("Interface")) == (["map", []], "down")

    scene.network.fault = "no route to 192.0.2.1"
    scene.network.on_change()
    assert await eventually(lost)
    problem = ["heliograph-error", "sends nothing: no route to 192.0.2.1"]
    assert (await row("Port"))["external_ids"] == ["map", [problem]]

    async def found() -> bool:
        return told(await row("Interface")) == (way, "up")

    scene.network.fault = None
    scene.network.on_change()
    assert await eventually(found)

# SPDX-License-Identifier: Apache-2.0
"""Rows of Controller: connections made and taken, and what their columns say."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch

from heliograph.control.wanted import ControllerStatus, WantedController
from heliograph.openflow import messages as m
from heliograph.openflow.codec import encode


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliograph.control.connector._FIRST_DELAY", 0.03)


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return condition()


def status(switch: Switch, row: WantedController) -> ControllerStatus:
    return switch.service.status()[row.uuid]


class Far:
    """A controller that the switch connects to."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(Client(reader, writer, 4))

    async def client(self, number: int) -> Client:
        assert await eventually(lambda: len(self.clients) > number)
        return self.clients[number]


@contextlib.asynccontextmanager
async def listening(**where: Any) -> AsyncIterator[tuple[Far, asyncio.Server]]:
    far = Far()
    make = asyncio.start_unix_server if "path" in where else asyncio.start_server
    server = await make(far.accept, **where)
    try:
        yield far, server
    finally:
        server.close()
        for client in far.clients:
            client.writer.transport.abort()


async def test_the_switch_connects_and_says_so(switch: Switch) -> None:
    row = switch.controller("unix:far")
    await switch.configure(controllers=(row,))
    assert await eventually(lambda: status(switch, row).status["state"] == "BACKOFF")  # type: ignore[index]
    assert status(switch, row) == ControllerStatus(
        status={"state": "BACKOFF", "last_error": "No such file or directory"}
    )
    async with listening(path=switch.rundir / "far") as (far, server):
        first = await far.client(0)
        assert not status(switch, row).is_connected
        await first.greet()
        assert await eventually(lambda: status(switch, row).is_connected)
        assert status(switch, row) == ControllerStatus(
            is_connected=True,
            role="other",
            status={"state": "ACTIVE", "sec_since_connect": "0"},
        )
        # It is told of ports without having asked.
        await switch.configure(ports=switch.wanted.ports[:2])
        assert [type(message) for message in await first.ask()] == [m.PortStatus]
        changes = switch.agent.changes
        await first.ask(m.RoleRequest(m.Role.PRIMARY, 1))
        assert status(switch, row).role == "master"
        assert switch.agent.changes > changes
        changes = switch.agent.changes
        await first.close()
        assert await eventually(lambda: not status(switch, row).is_connected)
        assert switch.agent.changes > changes
        said = status(switch, row).status
        assert said == {
            "state": "BACKOFF",
            "last_error": "End of file",
            "sec_since_connect": "0",
            "sec_since_disconnect": "0",
        }
        second = await far.client(1)
        await second.greet()
        assert await eventually(lambda: status(switch, row).is_connected)
        server.close()


async def test_tcp_both_ways(switch: Switch) -> None:
    async with listening(host="127.0.0.1", port=0) as (far, server):
        port = server.sockets[0].getsockname()[1]
        out = switch.controller(f"tcp:127.0.0.1:{port}")
        await switch.configure(controllers=(out,))
        await (await far.client(0)).greet()
        assert await eventually(lambda: status(switch, out).is_connected)
    assert await eventually(lambda: not status(switch, out).is_connected)
    assert await eventually(
        lambda: (status(switch, out).status or {}).get("last_error") == "Connection refused"
    )
    # The port is free now.
    into = switch.controller(f"ptcp:{port}:127.0.0.1")
    await switch.configure(controllers=(into,))
    assert status(switch, into) == ControllerStatus(status={})
    client = Client(*await asyncio.open_connection("127.0.0.1", port), 4)
    await client.greet()
    assert await client.ask() == []
    assert status(switch, into) == ControllerStatus(is_connected=True, role="other", status={})
    # One more cannot listen there, and says so until it can.
    again = switch.controller(f"ptcp:{port}:127.0.0.1", probe=9)
    again = replace(again, uuid=switch.controller("other").uuid)
    await switch.configure(controllers=(into, again))
    assert "cannot listen: " in status(switch, again).problem
    await switch.configure(controllers=(again,))
    assert await client.message() is None
    await switch.service.tick()
    assert status(switch, again).problem == ""


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("ssl:127.0.0.1", "TLS is not supported"),
        ("unix:/etc/x", "has to be below"),
        ("none", "is no target"),
    ],
)
async def test_rows_that_cannot_be(switch: Switch, target: str, problem: str) -> None:
    row = switch.controller(target)
    await switch.configure(controllers=(row,))
    assert problem in status(switch, row).problem
    assert not status(switch, row).is_connected


async def test_in_band_control_is_said_not_to_be(switch: Switch) -> None:
    row = replace(switch.controller("unix:far"), connection_mode="in-band")
    await switch.configure(controllers=(row,))
    assert "set connection_mode=out-of-band" in status(switch, row).problem
    for mode in (None, "out-of-band"):
        row = replace(row, connection_mode=mode)
        await switch.configure(controllers=(row,))
        assert status(switch, row).problem == ""


async def test_attempts_are_ever_farther_apart(switch: Switch) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(loop.time())
        writer.close()

    server = await asyncio.start_unix_server(accept, switch.rundir / "far")
    row = replace(switch.controller("unix:far"), max_backoff=120)
    await switch.configure(controllers=(row,))
    assert await eventually(lambda: len(times) == 6)
    server.close()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(
        g > least for g, least in zip(gaps, (0.029, 0.059, 0.119, 0.119, 0.119), strict=True)
    )
    assert max(gaps) < 2


async def test_rows_that_change_begin_anew_and_others_stay(switch: Switch) -> None:
    first, second = switch.controller("punix:br0.a"), switch.controller("punix:br0.b")
    await switch.configure(controllers=(first, second))
    one = await Client.connect(switch.rundir / "br0.a", 4)
    two = await Client.connect(switch.rundir / "br0.b", 4)
    await switch.configure(controllers=(first, replace(second, rate_limit=100)))
    assert await one.ask() == []
    assert await two.message() is None
    await switch.configure(protocols=frozenset({"OpenFlow13"}))
    assert await one.message() is None
    await switch.configure(controllers=())
    assert not (switch.rundir / "br0.a").exists()


async def test_the_type_of_a_row_decides_over_its_target(switch: Switch) -> None:
    """A controller that listens but is said to be a service decides nothing (rule 68)."""
    row = replace(switch.controller("unix:far"), kind="service")
    await switch.configure(fail_mode="standalone", controllers=(row,))
    assert await switch.flows() == ["priority=0 actions=NORMAL"]
    async with listening(path=switch.rundir / "far") as (far, server):
        client = await far.client(0)
        await client.greet()
        assert await client.ask() == []
        await switch.configure(ports=())
        assert await client.ask() == []  # not told, for it did not ask
        server.close()


async def test_rule_68_a_controller_that_is_back_decides_again(switch: Switch) -> None:
    row = switch.controller("unix:far", probe=0.05)
    await switch.configure(fail_mode="standalone", controllers=(row,))
    await asyncio.sleep(0.2)
    await switch.service.tick()
    assert await switch.flows() == ["priority=0 actions=NORMAL"]
    row = replace(row, inactivity_probe=60_000)
    await switch.configure(fail_mode="standalone", controllers=(row,))
    assert await switch.flows() == ["priority=0 actions=NORMAL"]
    async with listening(path=switch.rundir / "far") as (far, server):
        await (await far.client(0)).greet()
        assert await eventually(lambda: status(switch, row).is_connected)
        await switch.service.tick()
        assert await switch.flows() == []
        server.close()


async def test_a_controller_may_be_told_nothing_unasked(switch: Switch) -> None:
    row = replace(switch.controller("unix:far"), enable_async=False)
    await switch.configure(controllers=(row,))
    async with listening(path=switch.rundir / "far") as (far, server):
        client = await far.client(0)
        await client.greet()
        assert await client.ask() == []
        await switch.configure(ports=())
        assert await client.ask() == []
        server.close()


async def test_a_peer_that_is_no_controller(switch: Switch) -> None:
    row = switch.controller("unix:far")
    async with listening(path=switch.rundir / "far") as (far, server):
        await switch.configure(controllers=(row,))
        client = await far.client(0)
        client.writer.write(encode(m.FeaturesRequest(), 1))
        assert await eventually(lambda: "last_error" in (status(switch, row).status or {}))
        assert "instead of a hello" in (status(switch, row).status or {})["last_error"]
        server.close()

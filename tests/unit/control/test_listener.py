# SPDX-License-Identifier: Apache-2.0
"""Sockets where controllers connect to."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch

from heliograph.control.channel import Channel
from heliograph.control.listener import Listener
from heliograph.control.session import Session
from heliograph.control.subscriptions import Kind
from heliograph.control.targets import Target


@pytest_asyncio.fixture
async def listener(switch: Switch) -> AsyncIterator[Listener]:
    """On RUNDIR/there, not open yet."""

    def make(channel: Channel, name: str) -> Session:
        versions = frozenset({4})
        return Session(switch.bridge, channel, name=name, versions=versions, kind=Kind.SERVICE)

    target = Target(listens=True, path=switch.rundir / "there")
    made = Listener("test", target, make, lambda: None)
    yield made
    await made.close()


async def test_a_socket_that_nobody_listens_on_is_replaced(
    switch: Switch, listener: Listener
) -> None:
    path = switch.rundir / "there"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    await listener.open()
    client = await Client.connect(path, 4)
    assert await client.ask() == []
    await listener.close()
    assert await client.message() is None
    assert not path.exists()


async def test_a_file_in_the_way_is_left_alone(
    switch: Switch, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    path = switch.rundir / "there"
    path.write_text("precious")
    for _ in range(3):
        await listener.open()
    assert "it is not a socket; move it" in listener.problem
    assert caplog.text.count("in the way") == 1
    assert path.read_text() == "precious"
    path.unlink()
    await listener.open()
    assert listener.problem == ""
    path.unlink()
    path.write_text("precious")
    await listener.close()
    assert path.read_text() == "precious"


async def test_what_another_put_in_its_place_stays(switch: Switch, listener: Listener) -> None:
    path = switch.rundir / "there"
    await listener.open()
    path.unlink()
    path.write_text("another's")
    await listener.close()
    assert path.exists()


async def test_there_may_not_be_more_than_so_many(
    switch: Switch, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.control.listener._MOST", 2)
    await listener.open()
    path = switch.rundir / "there"
    clients = [await Client.connect(path, 4) for _ in range(2)]
    third = await Client.silent(path, 4)
    assert await third.message() is None
    await clients[0].close()
    fourth = await Client.connect(path, 4)
    assert await fourth.ask() == []
    for client in (clients[1], fourth):
        await client.close()


async def test_a_fault_of_ours_ends_one_connection(
    switch: Switch,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await listener.open()
    client = await Client.connect(switch.rundir / "there", 4)
    other = await Client.connect(switch.rundir / "there", 4)

    async def faulty(*_: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as broken:
        broken.setattr("heliograph.control.session.answer", faulty)
        assert await client.ask() == [None]
    assert "for a fault of ours" in caplog.text
    assert await other.ask() == []
    await other.close()
    await asyncio.sleep(0)

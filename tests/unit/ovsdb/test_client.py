# SPDX-License-Identifier: Apache-2.0
"""The client against our server, a stock one, an old one and a dead one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from heliograph.errors import HeliographError
from heliograph.ovsdb import client as client_module
from heliograph.ovsdb import ovs_schema
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.errors import OvsdbError, TransactionError
from heliograph.ovsdb.wire import encode


@pytest.fixture(params=["ours", "stock"])
async def remote(
    request: pytest.FixtureRequest, tmp_path: Path, run_server: Any, stock_server: Any
) -> AsyncIterator[str]:
    if request.param == "stock":
        yield f"unix:{stock_server(ovs_schema.open_vswitch().json)}"
    else:
        async with run_server(tmp_path) as path:
            yield f"unix:{path}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def bridge(name: str) -> list[Any]:
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": name}},
        {
            "op": "insert",
            "table": "Port",
            "uuid-name": "p",
            "row": {"name": name, "interfaces": ["named-uuid", "i"], "trunks": ["set", [7, 3]]},
        },
        {
            "op": "insert",
            "table": "Bridge",
            "uuid-name": "b",
            "row": {"name": name, "ports": ["named-uuid", "p"]},
        },
        {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}},
    ]


async def test_a_replica_follows_the_database(remote: str) -> None:
    updates = []
    async with await Client.connect(remote, timeout=60) as client:
        replica = await client.monitor(None, lambda: updates.append(1))
        assert replica.tables["Bridge"] == {}
        results = await client.transact(bridge("br0"))
        await until(lambda: bool(updates))
        port_uuid = UUID(results[1]["uuid"][1])
        port = replica.tables["Port"][port_uuid]
        assert (port.table, port.uuid, port["name"]) == ("Port", port_uuid, "br0")
        assert port["tag"] is None
        assert port["trunks"] == (3, 7)
        assert port["interfaces"] == (UUID(results[0]["uuid"][1]),)
        assert port["external_ids"] == {}
        change = {"tag": 4, "trunks": 3, "external_ids": ["map", [["b", "2"], ["a", "1"]]]}
        await client.transact([{"op": "update", "table": "Port", "where": [], "row": change}])
        await until(lambda: len(updates) == 2)
        changed = replica.tables["Port"][port_uuid]
        assert (changed["tag"], changed["trunks"]) == (4, (3,))
        assert changed["external_ids"] == {"a": "1", "b": "2"}
        assert port["tag"] is None  # a row that was looked at does not change
        await client.transact([{"op": "delete", "table": "Open_vSwitch", "where": []}])
        await until(lambda: not replica.tables["Port"])
        assert replica.tables["Bridge"] == {}


async def test_monitoring_some_columns(remote: str) -> None:
    async with await Client.connect(remote) as client:
        await client.transact(bridge("br0"))
        replica = await client.monitor({"Port": ["name"]}, lambda: None)
        assert set(replica.tables) == {"Port"}
        (port,) = replica.tables["Port"].values()
        assert dict(port) == {"name": "br0"}
        with pytest.raises(KeyError):
            port["tag"]


async def test_a_refused_operation_is_named(remote: str) -> None:
    async with await Client.connect(remote) as client:
        await client.request("echo", [])
        wrong = {"op": "insert", "table": "Mirror", "row": {"snaplen": 13}}
        with pytest.raises(TransactionError) as caught:
            await client.transact([{"op": "comment", "comment": "a"}, wrong])
        assert caught.value.error == "constraint violation"
        assert caught.value.index == 1
        assert "13 is not in the valid range 14 to 65535 (inclusive)" in caught.value.details
        with pytest.raises(OvsdbError, match="unknown database"):
            await client.get_schema("Nothing")


async def test_schema_is_typed(remote: str) -> None:
    async with await Client.connect(remote) as client:
        schema = await client.get_schema()
        assert schema.version == "8.8.0"
        assert schema.table("Port").column("tag").type.is_optional
        assert schema is await client.get_schema()


@pytest.mark.parametrize(
    "remote", ["unix:/nonexistent/db.sock", "tcp:127.0.0.1:1", "ssl:x", "tcp:a:b"]
)
async def test_a_remote_that_is_not_there_is_named(remote: str) -> None:
    with pytest.raises(HeliographError, match=remote):
        await Client.connect(remote, timeout=60)


Handler = Callable[[dict[str, Any], asyncio.StreamWriter], None]


@pytest.fixture
async def fake_server(tmp_path: Path) -> AsyncIterator[Callable[[Handler], Any]]:
    """A server that answers as the test says."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(handler: Handler) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            decoder, text = json.JSONDecoder(), ""
            while data := await reader.read(65536):
                text += data.decode()
                while text:
                    message, end = decoder.raw_decode(text)
                    text = text[end:]
                    handler(message, writer)

        servers.append(await asyncio.start_unix_server(serve, tmp_path / "fake.sock"))
        return f"unix:{tmp_path}/fake.sock"

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.close()


async def test_a_server_without_monitor_cond(fake_server: Any) -> None:
    row = "00000000-0000-4000-8000-000000000001"

    def old_server(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        reply = {"id": message["id"], "result": None, "error": None}
        if message["method"] == "get_schema":
            reply["result"] = ovs_schema.open_vswitch().json
        elif message["method"] == "monitor":
            reply["result"] = {"Queue": {row: {"new": {"dscp": 3}}}}
        else:
            reply["error"] = "unknown method"
        writer.write(encode(reply))
        if message["method"] == "monitor":
            name = message["params"][1]
            for update in ({"new": {"dscp": 4}, "old": {"dscp": 3}}, {"old": {"dscp": 4}}):
                params = [name, {"Queue": {row: update}}]
                writer.write(encode({"id": None, "method": "update", "params": params}))

    seen = []
    async with await Client.connect(await fake_server(old_server)) as client:
        replica = await client.monitor(
            {"Queue": ["dscp"]}, lambda: seen.append(len(replica.tables["Queue"]))
        )
        await until(lambda: len(seen) == 2)
        assert replica.tables == {"Queue": {}}


async def test_echo_of_the_server_is_answered(fake_server: Any) -> None:
    answers: list[Any] = []

    def probing(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "method" not in message:
            answers.append(message)
            return
        writer.write(encode({"method": "echo", "params": ["alive?"], "id": "probe"}))
        writer.write(encode({"id": message["id"], "result": [], "error": None}))

    async with await Client.connect(await fake_server(probing)) as client:
        await client.request("echo", [])
        await until(lambda: bool(answers))
    assert answers == [{"id": "probe", "result": ["alive?"], "error": None}]


async def test_a_lost_connection_is_told(fake_server: Any) -> None:
    def hanging_up(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.close()

    client = await Client.connect(await fake_server(hanging_up))
    with pytest.raises(HeliographError, match="closed the connection"):
        await client.request("echo", [])
    await client.closed
    with pytest.raises(HeliographError, match="closed"):
        await client.request("echo", [])
    await client.close()


async def test_a_silent_server_counts_as_dead(
    fake_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PROBE_INTERVAL", 0.05)
    client = await Client.connect(await fake_server(lambda message, writer: None))
    with pytest.raises(HeliographError, match="has not answered"):
        await client.request("echo", [])
    assert client.closed.done()
    await client.close()


async def test_nonsense_from_the_server_ends_the_connection(fake_server: Any) -> None:
    client = await Client.connect(await fake_server(lambda message, writer: writer.write(b"no")))
    with pytest.raises(HeliographError):
        await client.request("echo", [])
    assert client.closed.done()
    await client.close()

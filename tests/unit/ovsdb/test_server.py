# SPDX-License-Identifier: Apache-2.0
"""The server on its socket: the stock tools, SIGKILL, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ovs.db.schema import DbSchema
from tools.lab.processes import answers

from heliograph.errors import AlreadyRunningError, HeliographError
from heliograph.ovsdb import ovs_schema, storage, wire
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.errors import TransactionError

SERVE = """
import asyncio, signal, sys
from pathlib import Path
from heliograph.ovsdb.server import serve

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None, stop=stop)

asyncio.run(main())
"""
QOS = {"op": "insert", "table": "QoS", "row": {"type": "q"}}
PATIENCE = 60.0


class ServerProcess:
    def __init__(self, rundir: Path, *dbfile: Path) -> None:
        self.path = rundir / "db.sock"
        self.path.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, "-c", SERVE, rundir, *dbfile])
        deadline = time.monotonic() + PATIENCE
        while not answers(self.path):
            assert time.monotonic() < deadline, "the server did not start"
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that leave it as it was, or only add to it."""
    directory = tmp_path_factory.mktemp("server")
    process = ServerProcess(directory, directory / "conf.db")
    yield process
    assert process.process.poll() is None, "a test ended the server"
    assert process.stop() == 0
    assert not process.path.exists(), "the socket was left behind"


def test_the_socket_is_private_to_the_group(server: ServerProcess) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o660
    assert [path.name for path in server.path.parent.glob("*sock*")] == ["db.sock"]


def test_ovs_vsctl(server: ServerProcess, stock: Any) -> None:
    def vsctl(*words: str, ok: bool = True) -> str:
        text: str = stock.run("ovs-vsctl", "--no-wait", f"--db=unix:{server.path}", *words, ok=ok)
        return text.strip()

    vsctl("add-br", "br0")
    for name in ("tap1", "tap2", "tap3"):
        vsctl("add-port", "br0", name, "--", "set", "interface", name, "type=internal")
    vsctl(
        *"-- --id=@a get port tap1 -- --id=@b get port tap3 -- --id=@m create mirror".split(),
        *"name=m0 select_dst_port=@a output_port=@b -- set bridge br0 mirrors=@m".split(),
    )
    assert vsctl("list-ports", "br0").split() == ["tap1", "tap2", "tap3"]
    assert vsctl("get", "mirror", "m0", "output_port") == vsctl("get", "port", "tap3", "_uuid")
    assert "valid range 0 to 4095" in vsctl("set", "port", "tap1", "tag=4096", ok=False)
    assert vsctl("get", "port", "tap1", "tag") == "[]"
    vsctl("del-port", "tap3")
    assert vsctl("get", "mirror", "m0", "output_port") == "[]"  # the weak reference went with it
    vsctl("clear", "bridge", "br0", "mirrors")
    assert vsctl("list", "mirror") == ""  # garbage
    vsctl("del-br", "br0")
    assert vsctl("--columns=name", "list", "interface") == ""


def test_ovsdb_client(server: ServerProcess, stock: Any) -> None:
    def client(command: str, *words: str) -> str:
        return str(stock.run("ovsdb-client", command, f"unix:{server.path}", *words))

    assert client("list-dbs").split() == ["Open_vSwitch", "_Server"]
    assert client("get-schema-version").strip() == "8.8.0"
    schema = DbSchema.from_json(json.loads(client("get-schema")))
    assert schema.to_json() == DbSchema.from_json(ovs_schema.open_vswitch().json).to_json()
    assert "Flow_Table" in client("list-tables")
    (result,) = json.loads(client("transact", json.dumps(["Open_vSwitch", QOS])))
    assert result["uuid"][1] in client("dump", "Open_vSwitch", "QoS", "_uuid")
    assert client("backup").startswith("OVSDB JSON ")
    assert client("wait", "Open_vSwitch", "connected") == ""


def test_ovsdb_client_monitor(server: ServerProcess, stock: Any, raw_client: Any) -> None:
    command = [stock.path("ovsdb-client"), "monitor", "--format=json", f"unix:{server.path}"]
    with subprocess.Popen([*command, "Queue", "dscp"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            writer = raw_client(server.path)
            insert = {"op": "insert", "table": "Queue", "row": {"dscp": 3}}
            where = [["dscp", "==", 3]]
            deadline = time.monotonic() + PATIENCE
            shown: list[str] = []
            while not any('"insert",3' in line for line in shown):
                # It is not known when the monitor has begun, so until then there is news for it.
                writer.request("transact", "Open_vSwitch", insert)
                writer.request(
                    "transact", "Open_vSwitch", {"op": "delete", "table": "Queue", "where": where}
                )
                while select.select([process.stdout], [], [], 0.02)[0]:
                    shown.append(process.stdout.readline().decode())
                assert time.monotonic() < deadline, shown
        finally:
            process.kill()


BAD_STREAMS = [
    b"hello",
    b"[]",
    b'{"id":1}',
    b'{"method":"transact","params":{},"id":1}',
    b'{"method":7,"params":[],"id":1}',
    b'{"method":"list_dbs","params":[]}',
    b'{"method":"echo","params":["\xff"],"id":1}',
    b'{"a":' * 1000,
    b'{"method":"echo","params":[1e999],"id":1}',
    b'{"method":"echo","params":' + b"[" * 5000 + b"]" * 5000 + b',"id":1}',
]


@pytest.mark.parametrize("stream", BAD_STREAMS)
def test_what_is_not_json_rpc_closes_that_connection_only(
    server: ServerProcess, raw_client: Any, stream: bytes
) -> None:
    other, bad = raw_client(server.path), raw_client(server.path)
    bad.socket.sendall(stream)
    assert bad.receive() is None
    assert other.request("echo", 1) == [1]


def test_an_oversize_message_closes_that_connection_only(
    server: ServerProcess, raw_client: Any
) -> None:
    other, bad = raw_client(server.path), raw_client(server.path)
    piece = b"x" * (1 << 20)
    with pytest.raises(ConnectionError):
        bad.socket.sendall(b'{"id":"')
        for _ in range(wire.MAX_MESSAGE // len(piece) + 2):
            bad.socket.sendall(piece)
        bad.socket.recv(1)
        raise ConnectionResetError  # an orderly end is as good
    assert other.request("echo", 1) == [1]


@pytest.mark.parametrize(
    ("method", "params", "tag"),
    [
        ("nonsense", [], "unknown method"),
        ("get_schema", [], "syntax error"),
        ("get_schema", ["Other"], "unknown database"),
        ("transact", [7], "syntax error"),
        ("transact", ["Other"], "unknown database"),
        ("monitor", ["Open_vSwitch"], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, []], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, {"Nowhere": {}}], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, {"Port": {"columns": ["typo"]}}], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, {"Port": {"columns": 7}}], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, {"Port": {"select": {"modify": 7}}}], "syntax error"),
        ("monitor", ["Open_vSwitch", 1, {"Port": [{"columns": ["tag"]}] * 2}], "syntax error"),
        ("monitor_cond", ["Open_vSwitch", 1, {"Port": {"where": [[]]}}], "syntax error"),
        ("monitor_cond_change", [1, 2, {}], "syntax error"),
        ("monitor_cancel", [1], "unknown monitor"),
        ("lock", ["two words"], "syntax error"),
        ("unlock", ["free"], "syntax error"),
        ("convert", ["Open_vSwitch", {}], "not supported"),
        ("set_db_change_aware", [], "syntax error"),
    ],
)
def test_wrong_requests_get_an_error(
    server: ServerProcess, raw_client: Any, method: str, params: Any, tag: str
) -> None:
    client = raw_client(server.path)
    client.send({"method": method, "params": params, "id": 5})
    reply = client.receive()
    assert (reply["id"], reply["result"]) == (5, None)
    error = reply["error"]
    assert tag == (error if isinstance(error, str) else error["error"])


def test_the_server_database_is_read_only(server: ServerProcess, raw_client: Any) -> None:
    client = raw_client(server.path)
    (result,) = client.request(
        "transact", "_Server", {"op": "select", "table": "Database", "where": []}
    )
    databases = {row["name"]: row for row in result["rows"]}
    assert set(databases) == {"Open_vSwitch", "_Server"}
    assert databases["Open_vSwitch"]["connected"] is True
    assert json.loads(databases["Open_vSwitch"]["schema"]) == ovs_schema.open_vswitch().json
    delete = {"op": "delete", "table": "Database", "where": []}
    assert client.request("transact", "_Server", delete)[0]["error"] == "not allowed"


def test_messages_without_a_reader_do_not_fill_the_memory(
    server: ServerProcess, raw_client: Any
) -> None:
    """A client that asks for the schema again and again and never reads an answer."""
    greedy, other = raw_client(server.path), raw_client(server.path)
    request = wire.encode({"method": "get_schema", "params": ["Open_vSwitch"], "id": 1})
    greedy.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):  # the server stops reading it
        for _ in range(200):
            greedy.socket.sendall(request * 1000)  # 60 KB, answered it would be 15 MB
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 100_000  # KB
    assert other.request("echo", 1) == [1]
    greedy.socket.settimeout(PATIENCE)
    assert greedy.receive()["result"]["name"] == "Open_vSwitch"  # and it goes on when it reads


def test_updates_for_a_slow_client_are_joined(server: ServerProcess, raw_client: Any) -> None:
    slow, writer = raw_client(server.path), raw_client(server.path)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    (inserted,) = writer.request("transact", "Open_vSwitch", QOS)
    row = inserted["uuid"][1]
    slow.request("monitor_cond", "Open_vSwitch", "m", {"QoS": [{"columns": ["external_ids"]}]})
    where = [["_uuid", "==", ["uuid", row]]]
    for number in range(60):
        ids = ["map", [["n", str(number)], ["pad", f"{number}" + "x" * 100_000]]]
        update = {"op": "update", "table": "QoS", "where": where, "row": {"external_ids": ids}}
        assert writer.request("transact", "Open_vSwitch", update) == [{"count": 1}]
    updates, last = 0, ""
    while last != "59":
        message = slow.receive()
        updates += 1
        (change,) = message["params"][1]["QoS"].values()
        last = dict(change["modify"]["external_ids"][1])["n"]
    assert updates < 50
    writer.request("transact", "Open_vSwitch", {"op": "delete", "table": "QoS", "where": where})


def test_too_many_monitors_are_refused(server: ServerProcess, raw_client: Any) -> None:
    client = raw_client(server.path)
    for number in range(150):
        client.send({"method": "monitor", "params": ["Open_vSwitch", number, {"SSL": {}}], "id": 1})
    errors = [client.receive()["error"] for _ in range(150)]
    assert errors[:100] == [None] * 100
    assert {error["error"] for error in errors[100:]} == {"resources exhausted"}


def test_acknowledged_transactions_survive_sigkill(tmp_path: Path, raw_client: Any) -> None:
    server = ServerProcess(tmp_path, tmp_path / "conf.db")
    try:
        clients = [raw_client(server.path) for _ in range(4)]
        acknowledged = set()
        for _ in range(5):
            for client in clients:
                for _ in range(10):
                    client.send({"method": "transact", "params": ["Open_vSwitch", QOS], "id": 1})
            for client in clients:
                for _ in range(10):
                    acknowledged.add(client.receive()["result"][0]["uuid"][1])
        for client in clients:  # and some that get no answer any more
            client.send({"method": "transact", "params": ["Open_vSwitch", QOS], "id": 1})
    finally:
        server.kill()
    again = ServerProcess(tmp_path, tmp_path / "conf.db")
    try:
        select = {"op": "select", "table": "QoS", "where": [], "columns": ["_uuid"]}
        (result,) = raw_client(again.path).request("transact", "Open_vSwitch", select)
    finally:
        again.kill()
    found = {row["_uuid"][1] for row in result["rows"]}
    assert len(acknowledged) == 200
    assert acknowledged <= found


async def test_a_second_server_is_refused(tmp_path: Path, run_server: Any) -> None:
    async with run_server(tmp_path) as path:
        with pytest.raises(AlreadyRunningError, match=r"db\.sock"):
            async with run_server(tmp_path):
                pass
        assert path.exists()


async def test_a_stale_socket_is_replaced(tmp_path: Path, run_server: Any) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "db.sock"))
    inode = (tmp_path / "db.sock").stat().st_ino
    async with run_server(tmp_path) as path:
        while path.stat().st_ino == inode:
            await asyncio.sleep(0.001)
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.close()


async def test_a_file_in_the_way_is_kept(tmp_path: Path, run_server: Any) -> None:
    (tmp_path / "db.sock").write_text("precious")
    with pytest.raises(HeliographError, match="not a socket"):
        async with run_server(tmp_path):
            pass
    assert (tmp_path / "db.sock").read_text() == "precious"


async def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path, run_server: Any) -> None:
    rundir = tmp_path / ("x" * 100)
    with pytest.raises(HeliographError, match=r"db\.sock"):
        async with run_server(rundir):
            pass
    assert list(rundir.iterdir()) == []


@pytest.mark.parametrize("depth", [100, 500, 900, 950, 980, 990, 1000])
def test_deep_nesting_harms_nobody(server: ServerProcess, raw_client: Any, depth: int) -> None:
    """The interpreter's recursion limit is met in reading or in answering, or not at all."""
    other = raw_client(server.path)
    deep = b"[" * depth + b"]" * depth
    for stream in (
        b'{"method":"echo","params":' + deep + b',"id":1}',
        b'{"method":"echo","params":[],"id":' + deep + b"}",
        b'{"method":"get_schema","params":' + deep + b',"id":1}',
        b'{"method":"monitor","params":["Open_vSwitch",' + deep + b',{"SSL":{}}],"id":1}',
        b'{"method":"transact","params":["Open_vSwitch",{"op":' + deep + b'}],"id":1}',
    ):
        raw_client(server.path).socket.sendall(stream)
        assert other.request("echo", 1) == [1]


async def test_the_log_is_compacted_while_clients_write(
    tmp_path: Path, run_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "COMPACT_FROM", 20_000)
    dbfile = tmp_path / "conf.db"
    largest = 0
    async with run_server(tmp_path, dbfile) as path, await Client.connect(f"unix:{path}") as client:
        await client.transact([QOS])
        for number in range(200):
            ids = ["map", [["n", f"{number} " + "x" * 1000]]]
            row = {"external_ids": ids}
            await client.transact([{"op": "update", "table": "QoS", "where": [], "row": row}])
            largest = max(largest, dbfile.stat().st_size)
    assert largest < 200_000  # without compaction it would be 400 KB
    async with run_server(tmp_path, dbfile) as path, await Client.connect(f"unix:{path}") as client:
        replica = await client.monitor({"QoS": ["external_ids"]}, lambda: None)
    (stored,) = replica.tables["QoS"].values()
    assert str(stored["external_ids"]).startswith("{'n': '199 ")


async def test_a_failing_disk_refuses_changes_and_goes_on_reading(
    tmp_path: Path, run_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    async with (
        run_server(tmp_path, tmp_path / "conf.db") as path,
        await Client.connect(f"unix:{path}") as client,
    ):
        await client.transact([QOS])
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(TransactionError, match="I/O error"):
            await client.transact([QOS])
        replica = await client.monitor({"QoS": ["type"]}, lambda: None)
        assert len(replica.tables["QoS"]) == 1

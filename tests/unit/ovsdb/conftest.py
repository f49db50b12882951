# SPDX-License-Identifier: Apache-2.0
"""The stock tools the tests compare with, and servers to run side by side."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tools.lab.processes import answers

from heliograph.ovsdb.server import serve

REPOSITORY = Path(__file__).resolve().parents[3]
MISSING = (
    "{root} has no unpacked Open vSwitch: `make test` provides it, or set HELIOGRAPH_OVS to the "
    "root of a tree made with `dpkg -x` of openvswitch-common and openvswitch-switch"
)


class StockTools:
    """The distribution's Open vSwitch programs, unpacked and not installed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, program: str) -> Path:
        kind = "sbin" if program == "ovsdb-server" else "bin"
        return self.root / "usr" / kind / program

    def run(self, program: str, *arguments: object, ok: bool = True) -> str:
        """Runs a program for at most 60 s and returns what it printed."""
        done = subprocess.run(
            [self.path(program), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stderr
        return done.stdout if ok else done.stderr


class RawClient:
    """A blocking client that sends bytes as they are and reads JSON messages."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self._text = ""

    def send(self, *messages: Any) -> None:
        self.socket.sendall("".join(json.dumps(message) for message in messages).encode())

    def receive(self) -> Any:
        """The next message; None at the end of the stream."""
        decoder = json.JSONDecoder()
        while True:
            with suppress(ValueError):
                message, end = decoder.raw_decode(self._text)
                self._text = self._text[end:]
                return message
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self._text += data.decode()

    def request(self, method: str, *params: Any) -> Any:
        """The result of a request; notifications before it are dropped."""
        self.send({"method": method, "params": params, "id": "raw"})
        while True:
            message = self.receive()
            assert message is not None, "the server closed the connection"
            if message.get("id") == "raw":
                assert message.get("error") is None, message
                return message["result"]

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="session")
def stock() -> StockTools:
    root = Path(os.environ.get("HELIOGRAPH_OVS") or REPOSITORY / ".cache" / "ovs")
    if not (root / "usr/sbin/ovsdb-server").exists():
        pytest.fail(MISSING.format(root=root))
    return StockTools(root)


@pytest.fixture(scope="session")
def stock_server(
    stock: StockTools, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[dict[str, Any]], Path]]:
    """Starts a stock ovsdb-server on a schema; gives the path of its socket."""
    started: list[subprocess.Popen[bytes]] = []

    def start(schema: dict[str, Any]) -> Path:
        directory = tmp_path_factory.mktemp("stock")
        (directory / "schema").write_text(json.dumps(schema))
        stock.run("ovsdb-tool", "create", directory / "conf.db", directory / "schema")
        path = directory / "db.sock"
        started.append(
            subprocess.Popen(
                [
                    stock.path("ovsdb-server"),
                    f"--remote=punix:{path}",
                    f"--unixctl={directory}/ctl",
                    "-vconsole:off",
                    directory / "conf.db",
                ]
            )
        )
        deadline = time.monotonic() + 60
        while not answers(path):
            assert time.monotonic() < deadline, "the stock ovsdb-server did not start"
            time.sleep(0.01)
        return path

    yield start
    for process in started:
        process.kill()
        process.wait()


@asynccontextmanager
async def serving(rundir: Path, dbfile: Path | None = None) -> AsyncIterator[Path]:
    """Our server in this process; gives the path of its socket."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve(rundir, dbfile, stop=stop))
    path = rundir / "db.sock"
    try:
        while not answers(path) and not task.done():
            await asyncio.sleep(0.002)
        yield path
    finally:
        stop.set()
        await task


@pytest.fixture
def run_server() -> Callable[..., Any]:
    return serving


@pytest.fixture(scope="session")
def raw_client() -> Iterator[Callable[[Path], RawClient]]:
    clients: list[RawClient] = []

    def connect(path: Path) -> RawClient:
        clients.append(RawClient(path))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()

# SPDX-License-Identifier: Apache-2.0
"""`helio vsctl` beside the real ovs-vsctl, line by line.

Both carry out the same lines in the same order, each on a stock ovsdb-server of its own: exit
code, stdout and stderr must be the same, and so must the databases in the end. What differs
by nature is levelled first: the program's name, UUIDs (by order of appearance), the order of
records, which Open vSwitch leaves to its hash table, and our "did you mean".
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli import stock

from heliograph.cli.main import main
from heliograph.ovsdb import client
from heliograph.ovsdb.schema import Schema

LINES = Path(__file__).with_name("lines.txt").read_text()
WORDS = [shlex.split(line) for line in LINES.splitlines() if not line.startswith("#")]
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[stock.Server, stock.Server]]:
    with stock.server() as theirs, stock.server() as ours:
        yield theirs, ours


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema, which is the same for all lines and takes most of the time of each."""
    known: dict[str, Schema] = {}

    def read(told: Any) -> Schema:
        text = json.dumps(told)
        if text not in known:
            known[text] = Schema(told)
        return known[text]

    monkeypatch.setattr(client, "Schema", read)


def _records(text: str) -> str:
    """Records and rows of a table in an order of their own, UUIDs by appearance in it."""
    seen: dict[str, str] = {}
    bare = _UUID.sub("UUID", text)
    parts = bare.split("\n\n") if "\n\n" in bare else bare.splitlines()
    text = "\n".join(sorted(part.strip("\n") for part in parts))
    return _UUID.sub(lambda found: seen.setdefault(found[0], f"UUID{len(seen)}"), text)


def _error(text: str) -> str:
    """stderr without log lines, programs' names and suggestions."""
    lines = [line for line in text.splitlines() if "|WARN|" not in line]
    lines = [line for line in lines if not line.startswith("helio: warning: ")]
    text = re.sub(r"^(\S*ovs-vsctl|helio): ", "", "\n".join(lines))
    text = re.sub(r' \(did you mean ".*"\?\)', "", text)
    return _UUID.sub("UUID", text)


def _level(text: str) -> str:
    """One wording for the errors of getopt_long(3) and of JSON."""
    found = re.fullmatch(r"transaction error: (\{.*\})", text.strip())
    if found:
        error = json.loads(found[1])
        text = f"transaction error: {error['error']}: {error['details']}"
    return text


def test_every_line_does_what_ovs_vsctl_does(
    servers: tuple[stock.Server, stock.Server], capfd: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = servers
    differences = []
    for words in WORDS:
        real = theirs.vsctl("--no-wait", *words)
        code = main(["vsctl", f"--db={ours.remote}", "--no-wait", *words])
        out, err = capfd.readouterr()
        want = (real.returncode, _records(real.stdout), _level(_error(real.stderr)))
        have = (code, _records(out), _error(err))
        if want != have:
            differences.append(f"{shlex.join(words)}\n  ovs-vsctl {want}\n  helio     {have}")
    assert not differences, "\n".join(differences)
    assert _dump(ours) == _dump(theirs)


def _dump(server: stock.Server) -> list[str]:
    """Every row of every table, UUIDs levelled."""
    program = stock.unpacked() / "usr/bin/ovsdb-client"
    command = [str(program), "dump", server.remote, "Open_vSwitch", "--format=csv"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return sorted(_UUID.sub("UUID", text).splitlines())


READS = [
    "show",
    "list bridge br0",
    "list port tap1",
    "list interface br0",
    "--columns=_uuid,name,ports list bridge br1",
    "--format=json list port tap1",
    "--format=table list interface tap1",
    "--data=bare list interface tap1",
    "get bridge br0 _uuid ports",
]


def test_reading_one_database_gives_the_same_bytes(
    servers: tuple[stock.Server, stock.Server], capfd: pytest.CaptureFixture[str]
) -> None:
    server = servers[0]
    for line in (
        "--may-exist add-br br0",
        "--may-exist add-br br1",
        "--may-exist add-port br0 tap1",
    ):
        assert server.vsctl("--no-wait", *line.split()).returncode == 0
    for line in READS:
        real = server.vsctl(*line.split())
        assert main(["vsctl", f"--db={server.remote}", *line.split()]) == real.returncode == 0
        assert capfd.readouterr().out == real.stdout

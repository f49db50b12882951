# SPDX-License-Identifier: Apache-2.0
"""A line from connecting to the last word on stderr, on a stock ovsdb-server.

The real ovs-vsctl plays the switch: it waits for `next_cfg`, then writes what a switch would.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli import stock

from heliograph.cli.main import main
from heliograph.cli.vsctl import session
from heliograph.errors import HeliographError
from heliograph.ovsdb.client import Client

Helio = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server() -> Iterator[stock.Server]:
    with stock.server() as found:
        yield found


@pytest.fixture
def helio(server: stock.Server, capfd: pytest.CaptureFixture[str]) -> Helio:
    """Runs one line; (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["vsctl", f"--db={server.remote}", *words])
        return code, *capfd.readouterr()

    return run


class Switch(threading.Thread):
    """Once `next_cfg` is `number`: write `words` and, in the same transaction, `cur_cfg`."""

    def __init__(self, server: stock.Server, number: int, *words: str) -> None:
        super().__init__()
        self._server = server
        self._line = [
            *("--no-wait", "--timeout=60", "wait-until", "open", ".", f"next_cfg={number}"),
            *("--", "set", "open", ".", f"cur_cfg={number}", *words),
        ]
        self.start()

    def run(self) -> None:
        self.result = self._server.vsctl(*self._line)

    def done(self) -> None:
        self.join()
        assert self.result.returncode == 0, self.result.stderr


def test_it_waits_for_the_switch_and_prints_what_failed(server: stock.Server, helio: Helio) -> None:
    assert helio("--no-wait", "add-br", "br0")[0] == 0
    error = 'error="no device nodev"'
    switch = Switch(server, 1, "--", "set", "interface", "nodev", "ofport=-1", error)
    assert helio("add-port", "br0", "nodev") == (
        0,
        "",
        "helio: Error detected while setting up 'nodev': no device nodev\n",
    )
    switch.done()
    switch = Switch(server, 2, "--", "set", "interface", "good", "ofport=1")
    assert helio("add-port", "br0", "good") == (0, "", "")
    switch.done()


def test_it_prints_what_the_switch_says_of_the_rows_it_touched(
    server: stock.Server, helio: Helio
) -> None:
    assert helio("--no-wait", "add-br", "br0", "--", "add-br", "br1")[0] == 0
    switch = Switch(
        server,
        1,
        *("--", "set", "mirror", "m0", 'external_ids:heliograph-error="has no output"'),
        *("--", "set", "bridge", "br1", "external_ids:heliograph-error=old"),
    )
    line = "-- --id=@m create mirror name=m0 select_all=true -- set bridge br0 mirrors=@m"
    code, out, err = helio(*line.split())
    switch.done()
    assert (code, err) == (0, 'helio: Mirror "m0": has no output\n')
    assert server.vsctl("get", "mirror", "m0", "_uuid").stdout == out
    switch = Switch(server, 2, "--", "remove", "mirror", "m0", "external_ids", "heliograph-error")
    assert helio("set", "mirror", "m0", "output_vlan=7") == (0, "", "")
    switch.done()


def test_reading_and_changing_nothing_wait_for_nobody(helio: Helio) -> None:
    assert helio("--no-wait", "add-br", "br0")[0] == 0
    assert helio("list-br") == (0, "br0\n", "")
    assert helio("set", "bridge", "br0", "fail_mode=[]") == (0, "", "")
    assert helio("get", "open", ".", "next_cfg") == (0, "0\n", "")


@pytest.mark.parametrize("before", [[], ["here"]], ids=str)
def test_a_conflict_runs_the_line_again(
    server: stock.Server, helio: Helio, monkeypatch: pytest.MonkeyPatch, before: list[str]
) -> None:
    for name in before:
        assert server.vsctl("--no-wait", "add-br", name).returncode == 0
    commits: list[None] = []
    original = session._Session._commit

    async def after_another(self: Any, *given: Any) -> Any:
        if not commits:
            assert server.vsctl("--no-wait", "add-br", "theirs").returncode == 0
        commits.append(None)
        return await original(self, *given)

    monkeypatch.setattr(session._Session, "_commit", after_another)
    assert helio("--no-wait", "add-br", "ours") == (0, "", "")
    assert len(commits) == 2
    assert server.vsctl("list-br").stdout.split() == [*before, "ours", "theirs"]


def test_what_was_not_there_is_verified_too(
    server: stock.Server, helio: Helio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.vsctl("--no-wait", "add-br", "br0").returncode == 0
    original = session._Session._commit

    async def after_another(self: Any, *given: Any) -> Any:
        server.vsctl("--no-wait", "--may-exist", "add-port", "br0", "late")
        monkeypatch.setattr(session._Session, "_commit", original)
        return await original(self, *given)

    monkeypatch.setattr(session._Session, "_commit", after_another)
    line = "--no-wait --if-exists del-port late -- set bridge br0 fail_mode=secure"
    assert helio(*line.split()) == (0, "", "")
    assert server.vsctl("list-ports", "br0").stdout == ""


def test_a_conflict_may_turn_into_an_error(
    server: stock.Server, helio: Helio, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = session._Session._commit

    async def after_another(self: Any, *given: Any) -> Any:
        server.vsctl("--no-wait", "add-br", "br0")
        return await original(self, *given)

    monkeypatch.setattr(session._Session, "_commit", after_another)
    code, _, err = helio("--no-wait", "add-br", "br0")
    assert (code, err) == (
        1,
        "helio: cannot create a bridge named br0 because a bridge named br0 already exists\n",
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "set port tap4 tap=111",
            'Port does not contain a column whose name matches "tap" (did you mean "tag"?)',
        ),
        ("list prot", 'unknown table "prot" (did you mean "Port"?)'),
        ("lst port", "unknown command 'lst'; use --help for help (did you mean \"list\"?)"),
        ("--no-wiat list-br", "unrecognized option '--no-wiat' (did you mean \"--no-wait\"?)"),
        (
            "get bridge br0 external_ids:neutorn",
            'no key "neutorn" in Bridge record "br0" column external_ids (did you mean "neutron"?)',
        ),
        ("get bridge br9 name", 'no row "br9" in table Bridge (did you mean "br0"?)'),
        ("list-ports br9", 'no bridge named br9 (did you mean "br0"?)'),
        ("get port 12345 name", 'no row "12345" in table Port'),
        (
            "add bridge br0 fail_mode secure standalone",
            '"add" operation would put 2 values in column fail_mode of table Bridge '
            "but the maximum number is 1",
        ),
        ("set bridge br0 external_ids=a", 'a: syntax error at the end expecting "="'),
    ],
)
def test_errors_say_the_nearest_valid_name(
    helio: Helio, server: stock.Server, line: str, error: str
) -> None:
    made = "add-br br0 -- set bridge br0 external_ids:neutron=x"
    assert server.vsctl("--no-wait", *made.split()).returncode == 0
    before = server.vsctl("list", "bridge").stdout
    assert helio("--no-wait", *line.split()) == (1, "", f"helio: {error}\n")
    assert server.vsctl("list", "bridge").stdout == before


def test_a_set_of_names_may_be_looked_for(helio: Helio) -> None:
    assert helio("--no-wait", "add-br", "a", "--", "add-br", "b", "--", "add-br", "c")[0] == 0
    line = ["--bare", "--columns=name", "find", "bridge", "name{in}a,c"]
    assert sorted(helio(*line)[1].split()) == ["a", "c"]


def test_a_uuid_may_be_cut_short(server: stock.Server, helio: Helio) -> None:
    assert helio("--no-wait", "add-br", "br0")[0] == 0
    uuid = server.vsctl("get", "bridge", "br0", "_uuid").stdout.strip()
    assert helio("get", "bridge", uuid[:4], "name") == (0, "br0\n", "")
    assert helio("get", "bridge", uuid.upper(), "name") == (0, "br0\n", "")
    assert helio("get", "bridge", uuid[:3], "name")[0] == 1


def test_it_waits_until_it_is_so(server: stock.Server, helio: Helio) -> None:
    began = time.monotonic()
    later = threading.Timer(0.2, server.vsctl, ["--no-wait", "add-br", "br0"])
    later.start()
    line = "wait-until bridge br0 name=br0 -- get bridge br0 name"
    assert helio(*line.split()) == (0, "br0\n", "")
    assert time.monotonic() - began >= 0.2
    later.join()


def test_out_of_time_it_dies_as_ovs_vsctl_does(server: stock.Server) -> None:
    line = ["--timeout=1", f"--db={server.remote}", "wait-until", "bridge", "nope"]
    command = [sys.executable, "-m", "heliograph.cli.main", "vsctl", *line]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == -signal.SIGALRM
    assert result.stderr == "helio: gave up waiting (--timeout)\n"


def test_without_a_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vsctl", f"--rundir={tmp_path}", "list-br"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("helio: ") and err.count("\n") == 1
    assert f"{tmp_path}/db.sock" in err


def test_the_server_is_found_by_ovs_rundir(
    server: stock.Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVS_RUNDIR", str(server.directory))
    assert main(["vsctl", "--no-wait", "add-br", "br0", "--", "list-br"]) == 0
    assert capfd.readouterr().out == "br0\n"


def test_it_tries_again_to_connect_if_told(
    server: stock.Server, helio: Helio, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = Client.connect
    refused = [HeliographError("refused")] * 2

    async def later(remote: str) -> Client:
        if refused:
            raise refused.pop()
        return await connect(remote)

    monkeypatch.setattr(Client, "connect", later)
    monkeypatch.setattr(session, "RETRY_PERIOD", 0.001)
    assert helio("list-br") == (1, "", "helio: refused\n")
    assert helio("--retry", "list-br") == (0, "", "")


def test_it_monitors_only_what_it_needs(helio: Helio, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mapping[str, Sequence[str]]] = []
    monitor = Client.monitor

    async def noted(self: Client, tables: Any, on_update: Any) -> Any:
        seen.append(tables)
        return await monitor(self, tables, on_update)

    monkeypatch.setattr(Client, "monitor", noted)
    assert helio("--no-wait", "add-br", "br0")[0] == 0
    assert helio("get", "bridge", "br0", "fail_mode")[0] == 0
    assert seen[1] == {"Open_vSwitch": [], "Bridge": ["fail_mode", "name"]}


def test_help_and_version_need_no_server(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vsctl", "--help"]) == 0
    assert "set TABLE RECORD COLUMN[:KEY]=VALUE..." in capfd.readouterr().out
    assert main(["vsctl", "--version"]) == 0
    assert capfd.readouterr().out.startswith("helio vsctl ")


def test_warnings_go_to_stderr(helio: Helio) -> None:
    code, _, err = helio("--no-wait", "--id=@m", "create", "mirror", "name=m")
    assert code == 0
    assert err.startswith('helio: warning: row id "@m" was created but no reference to it')
    assert err.count("\n") == 1

# SPDX-License-Identifier: Apache-2.0
"""The page that `helio show` prints, and the whole command on a stock ovsdb-server."""

import json
from pathlib import Path

import pytest
from tests.unit.cli import stock

from heliograph.cli.main import main
from heliograph.cli.overview import Bridge, Controller, Mirror, Overview, Port, Problem
from heliograph.cli.show import lines, size


def page(state: Overview) -> list[str]:
    return ["".join(text for _, text in line).rstrip() for line in lines(state)]


def test_the_page() -> None:
    counted = {"rx_packets": 1234, "rx_bytes": 98765, "tx_packets": 0, "tx_bytes": 0}
    ports = [
        Port("tap1", "access 5", "up", 1500, counted, []),
        Port("tap3", "trunk all", "up", 1500, {}, [], mirror_output=True),
        Port("long-name", "trunk all", "not set up", None, {}, ["no such device"]),
    ]
    drops = {"tx_packets": 9, "tx_bytes": 900, "drop_no_route": 2, "drop_queue": 1}
    mirrors = [
        Mirror("m0", "to tap1", "tap3", 96, drops, []),
        Mirror("m1", "everything", "", None, {}, ["has no output"]),
    ]
    problems = [Problem('Mirror "m1"', "has no output")]
    state = Overview([Bridge("br0", "secure", ports, mirrors)], problems, 5.0)
    assert page(state) == [
        "Bridge br0  fail_mode secure",
        "  port   tap1       access 5   up                 mtu 1500  rx 1,234 packets, 98.8 kB  "
        "tx 0 packets, 0 B",
        "  port   tap3       trunk all  up, mirror output  mtu 1500",
        "  port   long-name  trunk all  not set up",
        "         ! no such device",
        "  mirror m0  to tap1 -> tap3, first 96 bytes  9 packets, 900 B",
        "         dropped 3: no_route 2, queue 1",
        "  mirror m1  everything -> nowhere",
        "         ! has no output",
        "",
        "counters are from the database, up to 5 s old: the data plane cannot be read from here",
        "WRONG (1):",
        '  Mirror "m1": has no output',
    ]


def test_a_tunnel_says_where_it_leads_and_what_it_refused() -> None:
    counted = {"drop_key": 2, "drop_mtu": 1, "cut_mtu": 7}
    port = Port("gre0", "trunk all", "up", None, counted, [], tunnel="gre to 10.9.0.2 by eth0")
    assert page(Overview([Bridge("br0", "", [port], [])], [], None))[1:4] == [
        "  port   gre0  trunk all  up  gre to 10.9.0.2 by eth0",
        "         dropped 3: key 2, mtu 1",
        "         cut to the MTU of the tunnel's way: 7",
    ]


def test_controllers_and_flows() -> None:
    controllers = [
        Controller("ptcp:6653", "not connected", []),
        Controller("tcp:192.0.2.1", "connected, master", []),
        Controller("x:y", "not connected", ["no target"]),
    ]
    state = Overview([Bridge("br0", "secure", [], [], controllers, 1200)], [], None)
    assert page(state)[:-2] == [
        "Bridge br0  fail_mode secure  1,200 flows",
        "  controller ptcp:6653  not connected",
        "  controller tcp:192.0.2.1  connected, master",
        "  controller x:y  not connected",
        "         ! no target",
    ]
    (first, *_) = page(Overview([Bridge("br0", "", flows=1)], [], None))
    assert first == "Bridge br0  1 flow"


def test_the_empty_page() -> None:
    assert page(Overview([], [], None)) == ["no bridge", "", "nothing is wrong"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5_400_000_000_000, "5.4 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_the_command(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with stock.server() as server:
        made = "add-br br0 -- --id=@m create mirror name=m0 -- add bridge br0 mirrors @m"
        assert server.vsctl("--no-wait", *made.split()).returncode == 0
        words = ["show", f"--db={server.remote}", f"--rundir={tmp_path}"]
        assert main(words) == 0
        text = capfd.readouterr().out
        assert text.startswith("Bridge br0\n  port   br0")
        assert "nothing -> nowhere" in text
        assert main([*words, "--json"]) == 0
        bridge = json.loads(capfd.readouterr().out)["bridges"][0]
    assert [port["name"] for port in bridge["ports"]] == ["br0"]


def test_without_a_server(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", f"--rundir={tmp_path}"]) == 1
    assert f"{tmp_path}/db.sock" in capfd.readouterr().err

# SPDX-License-Identifier: Apache-2.0
"""Each command of the real ovs-ofctl, and what it does to frames and counters."""

import re
from collections.abc import Iterator

import pytest
from tests.system.flow_hosts import ALL_VERSIONS, Hosts, shared
from tests.system.flow_texts import GROUP, texts
from tests.system.site import frame
from tools.lab.processes import eventually

FRAME = frame()
TAGGED = frame(tag="81000005")


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[Hosts]:
    yield from shared(tokens)


@pytest.fixture
def hosts(made: Hosts) -> Hosts:
    """With what a bridge has to begin with."""
    made.replace(["priority=0,actions=NORMAL"])
    return made


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_what_is_printed_is_what_was_added(hosts: Hosts, version: str) -> None:
    lines = texts(version)
    assert len(lines) > 90
    hosts.replace([], [GROUP])
    hosts.ofctl("add-flows", "br0", "-", stdin="\n".join(lines), version=version)
    assert sorted(hosts.flows(version=version)) == lines
    assert hosts.ofctl("diff-flows", "br0", "br0", version=version) == ""


def test_add_and_delete(hosts: Hosts) -> None:
    """Strict and loose, by cookie, output port, group and table."""

    def left(*words: str) -> list[int]:
        hosts.ofctl(*words)
        return sorted(int(c, 16) for c in re.findall("cookie=(0x.)", "\n".join(hosts.dump())))

    flows = [
        "cookie=1,priority=5,in_port=1,actions=output:2",
        "cookie=2,priority=6,in_port=1,actions=output:3",
        "cookie=3,priority=7,in_port=1,dl_vlan=5,actions=output:2,output:3",
        "cookie=4,table=1,in_port=1,actions=group:1",
        "cookie=5,table=2,in_port=1,actions=resubmit(,1)",
    ]
    again = "add-flows", "br0", "-"
    hosts.replace([], [GROUP])
    everything = [1, 2, 3, 4, 5]
    hosts.ofctl(*again, stdin="\n".join(flows))
    assert left("del-flows", "br0", "cookie=9/-1") == everything
    assert left("del-flows", "br0", "cookie=1/1") == [2, 4]
    hosts.ofctl(*again, stdin="\n".join(flows))
    assert left("del-flows", "br0", "table=0,in_port=1") == [4, 5]
    hosts.ofctl(*again, stdin="\n".join(flows))
    assert left("--strict", "del-flows", "br0", "priority=5,in_port=1") == [2, 3, 4, 5]
    assert left("--strict", "del-flows", "br0", "priority=9,in_port=1") == [2, 3, 4, 5]
    hosts.ofctl(*again, stdin="\n".join(flows))
    assert left("del-flows", "br0", "out_port=3") == [1, 4, 5]
    assert left("del-flows", "br0", "out_group=1") == [1, 5]
    assert left("del-flows", "br0", "dl_vlan=5") == [1, 5]
    assert left("del-flows", "br0") == []
    assert hosts.send(1, FRAME) == {}


def test_a_flow_changes_what_becomes_of_frames(hosts: Hosts) -> None:
    assert hosts.send(1, FRAME) == {2: [FRAME], 3: [FRAME], 4: [FRAME]}
    hosts.ofctl("add-flow", "br0", "priority=9,in_port=1,actions=output:2")
    hosts.ofctl("add-flow", "br0", "priority=10,dl_vlan=5,actions=pop_vlan,output:3")
    assert hosts.send(1, FRAME, TAGGED) == {2: [FRAME], 3: [FRAME]}
    hosts.ofctl("mod-flows", "br0", "in_port=1,actions=output:4")
    assert hosts.send(1, FRAME, TAGGED) == {4: [FRAME], 3: [FRAME]}
    hosts.ofctl("--strict", "mod-flows", "br0", "priority=9,in_port=1,actions=output:2,output:4")
    assert hosts.send(1, FRAME) == {2: [FRAME], 4: [FRAME]}
    hosts.ofctl("mod-flows", "br0", "actions=drop")
    assert hosts.send(1, FRAME, TAGGED) == {}
    hosts.ofctl("del-flows", "br0", "dl_vlan=5")
    counted = list(hosts.counts("in_port=1").values())
    assert counted == [(4, 240)], "counters go on through changes"
    hosts.ofctl("add-flow", "br0", "reset_counts,priority=9,in_port=1,actions=output:2")
    assert hosts.packets("in_port=1") == 0
    refused = hosts.refused("add-flow", "br0", "check_overlap,priority=9,dl_vlan=5,actions=drop")
    assert "OFPFMFC_OVERLAP" in refused


def test_counters(hosts: Hosts) -> None:
    """Of flows, tables, ports and groups, each after known frames."""

    def ports() -> dict[str, tuple[int, ...]]:
        printed = hosts.ofctl("dump-ports", "br0")
        pattern = r"port +(\w+): rx pkts=(\d+), bytes=(\d+),[^\n]*\n +tx pkts=(\d+), bytes=(\d+)"
        return {found[0]: tuple(map(int, found[1:])) for found in re.findall(pattern, printed)}

    def tables(version: str) -> dict[str, tuple[int, ...]]:
        printed = hosts.ofctl("dump-tables", "br0", version=version)
        pattern = r"table (\d+).*?:\s+active=(\d+), lookup=(\d+), matched=(\d+)"
        return {found[0]: tuple(map(int, found[1:])) for found in re.findall(pattern, printed)}

    groups = ["group_id=1,type=all,bucket=output:2,bucket=output:3"]
    hosts.replace(["in_port=1,actions=resubmit(,1)", "table=1,ip,actions=drop"], groups)
    hosts.ofctl("add-flow", "br0", "table=1,dl_vlan=5,actions=group:1")
    before, of_tables = ports(), tables("OpenFlow10")
    hosts.send(1, *[TAGGED] * 7)
    hosts.send(2, FRAME, FRAME)
    assert hosts.packets() == 14
    printed = hosts.ofctl("dump-aggregate", "br0", "table=1")
    assert "packet_count=7 byte_count=448 flow_count=2" in printed
    for version in ALL_VERSIONS:
        now = tables(version)
        assert now["0"][0] == 1 and now["0"][2] - of_tables["0"][2] == 7, version
        assert now["1"][0] == 2, version
        assert [now["1"][n] - of_tables["1"][n] for n in (1, 2)] == [7, 7], version
    after = ports()
    assert after.keys() == {"1", "2", "3", "4", "LOCAL"}
    more = {
        name: tuple(b - a for a, b in zip(before[name], after[name], strict=True)) for name in after
    }
    assert more["1"] == (7, 448, 0, 0)
    assert more["2"] == (2, 120, 7, 448)
    assert more["3"] == (0, 0, 7, 448)
    assert more["4"] == (0, 0, 0, 0)
    one = hosts.ofctl("dump-ports", "br0", "2")
    assert re.findall(r"port +(\w+): rx pkts=(\d+)", one) == [("2", str(after["2"][0]))]
    stats = hosts.ofctl("dump-group-stats", "br0", "group_id=1")
    wanted = "ref_count=1,packet_count=7,byte_count=448,bucket0:packet_count=7,byte_count=448"
    assert f"{wanted},bucket1:packet_count=7,byte_count=448" in stats


def test_show(hosts: Hosts) -> None:
    wanted = [(str(n), f"p{n}") for n in hosts.numbers] + [("LOCAL", "br0")]
    for version in ALL_VERSIONS:
        shown = hosts.ofctl("show", "br0", version=version)
        described = hosts.ofctl("dump-ports-desc", "br0", version=version)
        for text in shown, described:
            found = re.findall(r"(\w+)\((\w+)\): addr:([0-9a-f:]{17})", text)
            assert [(number, name) for number, name, _ in found] == wanted
            for _, name, address in found:
                assert address == hosts.switch.host.mac(name).hex(":")
        datapath = hosts.tools.vsctl("get bridge br0 datapath_id").strip('"')
        assert f"dpid:{datapath}\nn_tables:64, n_buffers:0" in shown
        assert "frags=normal miss_send_len=0" in shown
    assert "Hardware: eBPF virtual switch" in hosts.ofctl("dump-desc", "br0")
    assert "mod_tp_dst" in hosts.ofctl("show", "br0", version="OpenFlow10")
    one = hosts.ofctl("dump-ports-desc", "br0", "3")
    assert re.findall(r"(\w+)\((\w+)\): addr:", one) == [("3", "p3")]


def test_mod_port(hosts: Hosts) -> None:
    """down, no-receive, no-forward and no-flood, each with frames, then as before."""
    every = {2: [FRAME], 3: [FRAME], 4: [FRAME]}

    def config() -> str:
        return str(re.findall(r"config: +(.*)", hosts.ofctl("show", "br0"))[1])

    def drops() -> dict[str, int]:
        words = hosts.switch.helio("show", "--rundir", hosts.switch.rundir, "--json").stdout
        found = re.findall(r'"drop_(no_(?:receive|forward))": (\d+)', words)
        return {name: int(n) for name, n in found}

    for port in ("2", "p2"):
        hosts.ofctl("mod-port", "br0", port, "no-receive")
        assert config() == "NO_RECV"
        assert hosts.send(2, FRAME) == {}
        assert hosts.send(1, FRAME) == every
        hosts.ofctl("mod-port", "br0", port, "receive")
        hosts.ofctl("mod-port", "br0", port, "no-forward")
        assert config() == "NO_FWD"
        assert hosts.send(1, FRAME) == {3: [FRAME], 4: [FRAME]}
        hosts.ofctl("mod-port", "br0", port, "forward")
        assert config() == "0"
    hosts.ofctl("mod-port", "br0", "2", "no-flood", version="OpenFlow10")  # others know of none
    assert hosts.send(1, FRAME) == {3: [FRAME], 4: [FRAME]}, "NORMAL floods there (rule 63)"
    hosts.ofctl("mod-flows", "br0", "actions=FLOOD")
    assert hosts.send(1, FRAME) == {3: [FRAME], 4: [FRAME]}
    hosts.ofctl("mod-flows", "br0", "actions=ALL")
    assert hosts.send(1, FRAME) == every
    hosts.ofctl("mod-flows", "br0", "actions=output:2")
    assert hosts.send(1, FRAME) == {2: [FRAME]}
    hosts.ofctl("mod-port", "br0", "2", "flood", version="OpenFlow10")
    hosts.ofctl("mod-flows", "br0", "actions=NORMAL")
    hosts.ofctl("mod-port", "br0", "2", "down")
    assert config() == "PORT_DOWN"
    assert "state DOWN" in hosts.switch.host.ip("link show p2")
    assert hosts.send(1, FRAME) == {3: [FRAME], 4: [FRAME]}
    hosts.ofctl("mod-port", "br0", "2", "up")
    assert eventually(lambda: hosts.send(1, FRAME) == every)
    assert drops() == {"no_receive": 2, "no_forward": 2}
    assert "couldn't find port" in hosts.refused("mod-port", "br0", "77", "up")


def test_packet_out(hosts: Hosts) -> None:
    tagged = frame(tag="81000007")
    push = "output:3,push_vlan:0x8100,set_field:4103->vlan_vid,output:2"
    cases: list[tuple[str, str, dict[int, list[bytes]]]] = [
        ("controller", "output:2", {2: [FRAME]}),
        ("1", "output:1,output:2", {2: [FRAME]}),
        ("1", "IN_PORT", {1: [FRAME]}),
        ("3", "FLOOD", {1: [FRAME], 2: [FRAME], 4: [FRAME]}),
        ("none", "ALL", {1: [FRAME], 2: [FRAME], 3: [FRAME], 4: [FRAME]}),
        ("1", "NORMAL", {2: [FRAME], 3: [FRAME], 4: [FRAME]}),
        ("1", push, {2: [tagged], 3: [FRAME]}),
        ("1", "group:1", {2: [FRAME], 4: [FRAME]}),
        ("1", "TABLE", {2: [FRAME], 3: [FRAME], 4: [FRAME]}),
        ("1", "resubmit(,7)", {}),
        ("1", "drop", {}),
    ]
    hosts.ofctl("add-group", "br0", "group_id=1,type=all,bucket=output:2,bucket=output:4")
    for in_port, actions, wanted in cases:
        captures = {number: hosts.capture(number) for number in hosts.numbers}
        words = f"in_port={in_port},packet={FRAME.hex()},actions={actions}"
        hosts.ofctl("packet-out", "br0", words)
        found = {}
        for number, capture in captures.items():
            with capture:
                frames = capture.collect(len(wanted.get(number, ())), quiet=0.02)
            if frames:
                found[number] = [one.data for one in frames]
        assert found == wanted, (in_port, actions)
    for version in ALL_VERSIONS:
        with hosts.capture(2) as two:
            words = f"in_port=controller,packet={FRAME.hex()},actions=output:2"
            hosts.ofctl("packet-out", "br0", words, version=version)
            assert [one.data for one in two.collect(1)] == [FRAME]
    bad = f"in_port=1,packet={FRAME.hex()},actions=group:77"
    assert "OFPBAC_BAD_OUT_GROUP" in hosts.refused("packet-out", "br0", bad)


def test_replace_and_diff(hosts: Hosts) -> None:
    flows = [f"in_port={n % 4 + 1},dl_vlan={n},actions=output:{n % 3 + 1}" for n in range(50)]
    hosts.replace([*flows, "dl_vlan=4000,actions=drop"])
    hosts.send(1, *[frame(tag="81000004")] * 3)
    wanted = [
        *flows[:20],
        *(f"{flow},output:4" for flow in flows[20:40]),
        "priority=9,actions=drop",
    ]
    path = hosts.lab.path("wanted")
    path.write_text("\n".join(wanted))
    changed, gone, new = 20, 11, 1
    said = hosts.differences(path)
    assert [line[0] for line in said].count("-") == changed + gone
    assert [line[0] for line in said].count("+") == changed + new
    for bundle in (["--bundle"], []):
        hosts.ofctl("add-flow", "br0", "dl_vlan=4001,actions=drop")
        hosts.ofctl(*bundle, "replace-flows", "br0", str(path))
        assert hosts.differences(path) == []
        assert len(hosts.dump()) == 41
        assert hosts.packets("dl_vlan=4") == 3, "a flow that is the same was made anew"


def test_groups(hosts: Hosts) -> None:
    def desc() -> str:
        (line,) = hosts.ofctl("dump-groups", "br0", "1").splitlines()[1:]
        return line.strip()

    hosts.ofctl("add-group", "br0", "group_id=1,type=all,bucket=bucket_id:1,actions=output:2")
    hosts.ofctl("add-flow", "br0", "in_port=1,actions=group:1")
    assert hosts.send(1, FRAME) == {2: [FRAME]}
    last = "group_id=1,command_bucket_id=last,bucket=bucket_id:7,output:3"
    hosts.ofctl("insert-buckets", "br0", last)
    assert hosts.send(1, FRAME) == {2: [FRAME], 3: [FRAME]}
    two = "bucket=bucket_id:1,actions=output:2,bucket=bucket_id:7,actions=output:3"
    assert desc() == f"group_id=1,type=all,{two}"
    hosts.ofctl("remove-buckets", "br0", "group_id=1,command_bucket_id=1")
    assert hosts.send(1, FRAME) == {3: [FRAME]}
    hosts.ofctl("mod-group", "br0", "group_id=1,type=indirect,bucket=output:4")
    assert hosts.send(1, FRAME) == {4: [FRAME]}
    live = "group_id=1,type=ff,bucket=watch_port:2,output:2,bucket=watch_port:3,output:3"
    hosts.ofctl("mod-group", "br0", live)
    assert hosts.send(1, FRAME) == {2: [FRAME]}
    hosts.switch.host.ip("link set p2 down")
    assert eventually(lambda: hosts.send(1, FRAME) == {3: [FRAME]})
    hosts.switch.host.ip("link set p2 up")
    assert eventually(lambda: hosts.send(1, FRAME) == {2: [FRAME]})
    assert "OFPGMFC_GROUP_EXISTS" in hosts.refused("add-group", "br0", GROUP)
    hosts.ofctl("del-groups", "br0", "group_id=1")
    assert hosts.flows("in_port=1") == []
    assert "OFPGMFC_UNKNOWN_GROUP" in hosts.refused("mod-group", "br0", GROUP)
    hosts.ofctl("--may-create", "mod-group", "br0", GROUP)
    for version in ALL_VERSIONS:
        assert "group_id=1,type=all," in hosts.ofctl("dump-groups", "br0", version=version)


@pytest.mark.parametrize("version", ["OpenFlow13", "OpenFlow14", "OpenFlow15"])
def test_bundles(hosts: Hosts, version: str) -> None:
    """All of one is done, or nothing, and what was at fault is said."""
    hosts.replace(["in_port=2,actions=output:1"])
    good = "add in_port=1,actions=output:2\ndelete in_port=2\nadd in_port=3,actions=output:1\n"
    hosts.ofctl("--bundle", "add-flows", "br0", "-", stdin=good, version=version)
    assert sorted(re.findall(r"in_port=\d", "\n".join(hosts.dump()))) == ["in_port=1", "in_port=3"]
    before = hosts.flows()
    bad = "add in_port=4,actions=output:1\ndelete in_port=1\nadd table=99,actions=drop\n"
    said = hosts.refused("--bundle", "add-flows", "br0", "-", stdin=bad, version=version)
    assert "OFPBRC_BAD_TABLE_ID" in said
    assert hosts.flows() == before
    assert hosts.send(1, FRAME) == {2: [FRAME]}
    mixed = [
        "group add group_id=1,type=all,bucket=output:3,bucket=output:4",
        "flow modify in_port=1,actions=group:1",
        f"packet-out in_port=3,packet={FRAME.hex()},actions=group:1",
    ]
    with hosts.capture(4) as four:
        hosts.ofctl("bundle", "br0", "-", stdin="\n".join(mixed), version=version)
        assert [one.data for one in four.collect(1)] == [FRAME]
    assert hosts.send(1, FRAME) == {3: [FRAME], 4: [FRAME]}

# SPDX-License-Identifier: Apache-2.0
"""Flows survive a restart of the switch with the data plane, and a cold start has none."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from threading import Thread
from types import TracebackType
from typing import Self

import pytest
from tests.system.flow_hosts import PROTOCOLS, Hosts
from tests.system.site import MAC2, frame
from tools.lab.flow import Flow
from tools.lab.heliograph import HELIO, Heliograph
from tools.lab.lab import Lab
from tools.lab.processes import answers, eventually, run

from heliograph.openflow.flows import FlowCommand, FlowMod
from heliograph.openflow.match import Match
from heliograph.openflow.messages import BundleAction, BundleControl, BundleFlags

GROUPS = """\
group_id=1,type=all,bucket=bucket_id:1,actions=output:2,bucket=bucket_id:2,actions=output:4
group_id=2,type=select,selection_method=hash,bucket=bucket_id:1,weight:3,actions=output:3
group_id=3,type=indirect,bucket=bucket_id:0,actions=output:3
group_id=4,type=ff,bucket=bucket_id:1,watch_port:3,actions=output:3
"""
# The path of the numbered frames (in_port 1), then what else there may be.
FLOWS = """\
cookie=0xa0,priority=100,in_port=1,dl_type=0x88b6,actions=load:5->NXM_NX_REG0[],resubmit(,3)
cookie=0xa1,priority=90,in_port=1,dl_type=0x88b6,actions=output:3
cookie=0xa2,priority=80,in_port=1,dl_type=0x88b6,actions=drop
cookie=0xb0,table=3,priority=7,reg0=5,actions=load:7->NXM_NX_REG15[],move:NXM_NX_REG0[]->NXM_NX_REG2[],goto_table:9
cookie=0xc0,table=9,reg2=5,reg15=7,idle_timeout=300,hard_timeout=600,actions=group:1
cookie=0xffffffffffffffff,table=63,priority=65535,send_flow_rem,tcp,tp_dst=80,actions=group:2
table=63,priority=0,actions=NORMAL
table=20,priority=5,udp6,ipv6_src=fe80::/64,actions=dec_ttl,set_field:fe80::1->ipv6_dst,group:3
table=20,priority=4,metadata=0x5/0xff,actions=clone(push_vlan:0x8100,set_field:4101->vlan_vid,output:2),group:4
table=20,priority=3,arp,arp_op=2,arp_tpa=10.0.0.0/8,actions=controller(max_len=128,id=7),IN_PORT
table=20,priority=2,idle_timeout=60000,importance=9,ip,nw_frag=later,actions=output(port=2,max_len=64)
"""
UPGRADED = 100  # frames a second over an upgrade
UNCOUNTED = 3  # seconds, at most, from the copying of counters to the swap of programs
TICK = 2**30 / 1e9  # seconds; of its last frame no more is known (bpf/types.h)
DEFAULT = ["cookie=0x0, table=0, priority=0 actions=NORMAL"]
COOKIE = re.compile("cookie=(0x[0-9a-f]+)")
_PACKETS = re.compile(r"n_packets=(\d+)")


def tables(hosts: Hosts) -> list[list[str]]:
    """All that the tools tell of flows and groups and that does not change by itself."""
    versions = "OpenFlow10", "OpenFlow13", "OpenFlow15"
    told = [hosts.flows(version=version) for version in versions]
    return [*told, *(hosts.ofctl("dump-groups", "br0", version=v).splitlines() for v in versions)]


def counters(hosts: Hosts) -> list[int]:
    """Of each flow, then of the groups and their buckets."""
    words = hosts.ofctl("dump-group-stats", "br0").replace("packet_count=", "n_packets=")
    return [int(n) for n in _PACKETS.findall("\n".join((*hosts.dump(), words)))]


def go_on(before: list[int], after: list[int]) -> bool:
    return len(before) == len(after) and all(b <= a for b, a in zip(before, after, strict=True))


@pytest.fixture
def hosts(lab: Lab, switch: Heliograph) -> Hosts:
    made = Hosts(lab, switch)
    made.replace(FLOWS.splitlines(), GROUPS.splitlines())
    return made


class Traffic:
    """Frames from host 1 to hosts 2 and 4, so many a second; each arrives once, in order."""

    def __init__(self, hosts: Hosts, rate: int = 1000) -> None:
        self._captures = {number: hosts.capture(number) for number in (2, 3, 4)}
        self._flow = Flow((hosts.guest, "g1"), MAC2, rate)
        self.sent = 0

    def sends(self, count: int) -> None:
        """Wait until so many more are sent."""
        wanted = self._flow.sent + count
        assert eventually(lambda: self._flow.sent >= wanted)

    def __enter__(self) -> Self:
        self._flow.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.__exit__(kind, error, trace)
        self.sent = self._flow.sent
        wanted = {2: self.sent, 3: 0, 4: self.sent} if error is None else {}
        arrived = {
            n: self._flow.numbers(capture.collect(wanted.get(n, 0)))
            for n, capture in self._captures.items()
        }
        for capture in self._captures.values():
            capture.close()
        if error is None:
            every = list(range(self.sent))
            assert arrived == {2: every, 3: [], 4: every}, "frames were lost, doubled or reordered"


def path_counts(hosts: Hosts) -> list[int]:
    """Of the four flows that each of the numbered frames meets, and the group."""
    found = [hosts.packets(f"table={table}") for table in (3, 9)]
    printed = hosts.ofctl("dump-group-stats", "br0", "group_id=1")
    return [*found, *(int(n) for n in re.findall(r"packet_count=(\d+)", printed))]


def test_flows_survive_stops_and_kills_under_traffic(hosts: Hosts) -> None:
    switch = hosts.switch
    before, counted = tables(hosts), counters(hosts)
    assert len(before[0]) == len(FLOWS.splitlines())
    with Traffic(hosts) as frames:
        frames.sends(100)
        assert switch.stop() == 0
        assert switch.host.pids() == []
        frames.sends(300)
        switch.start()
        assert tables(hosts) == before
        again = counters(hosts)
        assert go_on(counted, again)
        assert sum(again) - sum(counted) > 5 * 300, "what went by meanwhile was not counted"
        hosts.kill_switch()
        frames.sends(200)
        assert tables(hosts) == before
        assert go_on(again, counters(hosts))
        hosts.kill_switch()
        frames.sends(100)
    assert tables(hosts) == before
    assert path_counts(hosts) == [frames.sent] * 5
    assert "Traceback" not in hosts.log(), hosts.log()


def test_what_was_hidden_is_there_afterwards_and_changes_go_on(hosts: Hosts) -> None:
    """Of flows with one match only the highest is in the data plane; the journal has all."""
    hosts.ofctl("add-group", "br0", "group_id=9,type=all,bucket=output:3")
    hosts.switch.stop()
    hosts.switch.start()
    assert hosts.send(1, frame()) == {2: [frame()], 4: [frame()]}
    hosts.ofctl("--strict", "del-flows", "br0", "priority=100,in_port=1,dl_type=0x88b6")
    assert hosts.send(1, frame()) == {3: [frame()]}, "the flow below does not appear"
    hosts.ofctl("--strict", "mod-flows", "br0", "priority=90,in_port=1,dl_type=0x88b6,actions=2")
    assert hosts.send(1, frame()) == {2: [frame()]}
    hosts.ofctl("del-flows", "br0", "cookie=0xa1/-1")
    assert hosts.send(1, frame()) == {}, "the lowest one drops"
    hosts.ofctl("del-flows", "br0", "cookie=0xa2/-1")
    hosts.ofctl("add-flow", "br0", "priority=85,in_port=1,dl_type=0x88b6,actions=group:9")
    assert hosts.send(1, frame()) == {3: [frame()]}
    hosts.ofctl("mod-group", "br0", "group_id=9,type=all,bucket=output:2,bucket=output:3")
    before, counted = tables(hosts), counters(hosts)
    hosts.kill_switch()
    assert tables(hosts) == before
    assert go_on(counted, counters(hosts))
    assert hosts.send(1, frame()) == {2: [frame()], 3: [frame()]}
    hosts.ofctl("del-groups", "br0", "group_id=9")
    assert hosts.send(1, frame()) == {}, "the flow should have gone with its group"


def test_timeouts_go_on(hosts: Hosts) -> None:
    """They are counted from when a flow was added or last used, not from the restart."""
    before = time.monotonic()
    hosts.replace(
        [
            "cookie=1,idle_timeout=6,in_port=2,actions=drop",
            "cookie=2,hard_timeout=6,in_port=3,actions=drop",
            "cookie=3,idle_timeout=6,in_port=1,actions=drop",
        ]
    )
    added = time.monotonic()
    gone: dict[str, float] = {}

    def all_gone() -> bool:
        there = " ".join(hosts.dump())
        for cookie in ("0x1", "0x2", "0x3"):
            if f"cookie={cookie}," not in there:
                gone.setdefault(cookie, time.monotonic() - before)
        return len(gone) == 3

    with Flow((hosts.guest, "g1"), MAC2, rate=50) as frames:
        hosts.switch.stop()
        time.sleep(1)
        old = time.monotonic() - added
        hosts.switch.start()
        ages = re.findall(r"duration=([\d.]+)s", " ".join(hosts.dump()))
        assert all(float(age) >= old for age in ages), (ages, old)
        assert eventually(lambda: time.monotonic() > added + 4)
        all_gone()
        used, sent = time.monotonic() - before, frames.sent
        assert eventually(lambda: frames.sent > sent + 1)
    assert eventually(all_gone)
    assert gone["0x1"] >= 6 <= gone["0x2"], gone
    assert gone["0x3"] >= used + 6 - TICK, (used, gone)


def test_flows_are_there_after_an_upgrade(hosts: Hosts) -> None:
    """Another layout of the maps: a store is made anew of the journal, its counters taken along."""
    switch = hosts.switch
    before, counted = tables(hosts), counters(hosts)
    with Traffic(hosts, rate=UPGRADED) as frames:
        frames.sends(50)
        switch.stop()
        (folder,) = (switch.rundir / "bpf").glob("layout-*")
        folder.rename(folder.with_name("layout-0123456789abcdef"))
        switch.start()
        assert not folder.with_name("layout-0123456789abcdef").exists()
        frames.sends(50)
    assert tables(hosts) == before
    again = counters(hosts)
    assert go_on(counted, again)
    # What is counted between the copying of the counters and the swap of the programs is lost.
    least = frames.sent - UNCOUNTED * UPGRADED
    assert all(least < packets <= frames.sent for packets in path_counts(hosts))


@pytest.mark.parametrize("how", ["teardown", "new machine"])
def test_a_cold_start_has_no_flows(hosts: Hosts, how: str) -> None:
    """As in Open vSwitch; what is left in the run directory counts for nothing."""
    switch, journals = hosts.switch, hosts.switch.rundir / "flows"
    hosts.tools.vsctl("add-br br1 -- set-fail-mode br1 secure")
    switch.stop()
    if how == "new machine":
        shutil.copytree(journals, hosts.lab.path("kept"))
    switch.teardown()
    if how == "new machine":
        shutil.copytree(hosts.lab.path("kept"), journals, dirs_exist_ok=True)
    else:
        assert not list(journals.glob("*")), "teardown left journals"
    switch.start()
    assert hosts.flows() == DEFAULT
    assert hosts.ofctl("dump-groups", "br0").splitlines()[1:] == []
    assert hosts.ofctl("dump-flows", "br1").splitlines()[1:] == []
    assert sorted(hosts.send(1, frame())) == [2, 3, 4]
    assert len(list(journals.iterdir())) == 2


def test_a_bridge_made_anew_has_no_flows(hosts: Hosts) -> None:
    journals = hosts.switch.rundir / "flows"
    ports = " ".join(f"-- add-port br0 p{number}" for number in hosts.numbers)
    again = f"-- add-br br0 -- set bridge br0 {PROTOCOLS} {ports}"
    (old,) = journals.iterdir()
    hosts.tools.vsctl(f"del-br br0 {again}")
    assert hosts.flows() == DEFAULT
    assert hosts.ofctl("dump-groups", "br0").splitlines()[1:] == []
    (new,) = journals.iterdir()
    assert old != new
    hosts.replace(["in_port=1,actions=drop"])
    hosts.switch.stop()
    words = "db", "--rundir", hosts.switch.rundir, "--dbfile", hosts.switch.dbfile
    database = hosts.lab.start(hosts.switch.host, HELIO, *words)
    assert eventually(lambda: answers(hosts.switch.rundir / "db.sock"))
    hosts.tools.vsctl(f"--no-wait del-br br0 {again}")
    database.stop()
    hosts.switch.start()
    assert hosts.flows() == DEFAULT
    assert new not in list(journals.iterdir())
    assert sorted(hosts.send(1, frame())) == [2, 3, 4]


def test_damaged_journals(hosts: Hosts) -> None:
    """A bridge whose journal cannot be read begins anew and says so; the others keep theirs."""
    switch = hosts.switch
    damages: dict[str, Callable[[list[bytes]], list[bytes]]] = {
        "b-middle": lambda lines: [lines[0], b"rubbish\n", *lines[1:]],
        "b-binary": lambda lines: [bytes(range(256)), b"\n"],
        "b-other": lambda lines: [b'{"flows":[[1,2,3]]}\n'],
        "b-empty": lambda lines: [],
        "b-torn": lambda lines: [*lines[:-1], lines[-1][:-9]],
        "b-whole": lambda lines: lines,
    }
    hosts.tools.vsctl(" -- ".join(f"add-br {name}" for name in damages))
    paths = {}
    for name in damages:
        hosts.ofctl("add-flow", name, "cookie=1,in_port=1,actions=drop")
        hosts.ofctl("add-flow", name, "cookie=2,in_port=2,actions=drop")
        uuid = hosts.tools.vsctl(f"get bridge {name} _uuid")
        paths[name] = switch.rundir / "flows" / f"{uuid}.journal"
    before = tables(hosts)
    switch.stop()
    for name, damage in damages.items():
        lines = paths[name].read_bytes().splitlines(keepends=True)
        paths[name].write_bytes(b"".join(damage(lines)))
    switch.start()
    assert tables(hosts) == before
    cookies = {
        name: re.findall("cookie=(0x.)", hosts.ofctl("dump-flows", name)) for name in damages
    }
    anew = {name: ["0x0"] for name in ("b-middle", "b-binary", "b-other", "b-empty")}
    whole = {"b-torn": ["0x0", "0x1"], "b-whole": ["0x0", "0x1", "0x2"]}
    assert cookies == anew | whole
    said = [line for line in hosts.log().splitlines() if " error " in line or " warning " in line]
    for name in ("b-middle", "b-binary", "b-other"):
        assert sum(str(paths[name]) in line for line in said) == 1, hosts.log()
    assert len(said) <= 4, said
    assert "Traceback" not in hosts.log()
    hosts.ofctl("add-flow", "b-middle", "cookie=3,in_port=3,actions=drop")
    hosts.kill_switch()
    assert "cookie=0x3" in hosts.ofctl("dump-flows", "b-middle")
    assert tables(hosts) == before


def test_a_full_disk(lab: Lab) -> None:
    """Flows are in force all the same, and are kept as soon as there is room."""
    switch = Heliograph(lab)
    journals = switch.rundir / "flows"
    journals.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", journals])
    switch.start()
    hosts = Hosts(lab, switch)
    flows = [f"in_port=1,dl_vlan={n},actions=output:2" for n in range(1, 601)]
    hosts.ofctl("add-flows", "br0", "-", stdin="\n".join(flows))
    hosts.ofctl("add-flow", "br0", "hard_timeout=1,in_port=2,actions=drop")
    assert eventually(lambda: len(hosts.dump()) == 601)
    assert hosts.send(1, frame(tag="81000258")) == {2: [frame(tag="81000258")]}
    said = [line for line in hosts.log().splitlines() if "No space left on device" in line]
    assert len(said) == 1, hosts.log()
    assert "br0" in said[0]
    before = hosts.flows()
    run(["mount", "-o", "remount,size=1m", journals])
    switch.process.wait_for_log("its flows are kept in")
    hosts.kill_switch()
    assert sorted(hosts.flows()) == sorted(before)
    assert "Traceback" not in hosts.log()


def bundle(cookie: int) -> Iterator[FlowMod]:
    """300 flows with that cookie in the place of those there are."""
    yield FlowMod(command=FlowCommand.DELETE, table_id=7)
    for number in range(300):
        match = Match.of({"metadata": (number, 0xFFFF_FFFF_FFFF_FFFF)})
        yield FlowMod(command=FlowCommand.ADD, table_id=7, match=match, cookie=cookie)


class Changer(Thread):
    """Changes the tables until its connection ends: flows one by one, and bundles of them."""

    def __init__(self, hosts: Hosts, begin: int) -> None:
        super().__init__()
        self._controller = hosts.controller()
        self._begin = begin
        self.answered = begin  # the last number that was

    def works(self) -> None:
        """Wait until it is in the midst of it."""
        assert eventually(lambda: self.answered > self._begin + 3, interval=0.003)

    def run(self) -> None:
        flags = BundleFlags.ATOMIC | BundleFlags.ORDERED
        with suppress(AssertionError, ConnectionError), closing(self._controller) as controller:
            while True:
                number = self.answered + 1
                match = Match.of({"metadata": (number, 0xFFFF_FFFF_FFFF_FFFF)})
                add = FlowMod(command=FlowCommand.ADD, table_id=6, match=match, cookie=number)
                assert controller.change(add) == ""
                for mod in bundle(number):
                    assert controller.bundle_add(1, flags, mod) == ""
                commit = BundleControl(1, BundleAction.COMMIT_REQUEST, flags)
                controller.send(commit)
                self.answered = number


def test_kills_in_the_midst_of_changes(hosts: Hosts) -> None:
    """What was answered is there, and of a bundle that was not, all or nothing."""
    answered = 0
    with Traffic(hosts) as frames:
        for _ in range(3):
            changer = Changer(hosts, answered)
            changer.start()
            changer.works()
            hosts.kill_switch()
            changer.join()
            answered = changer.answered
            singles = {int(c, 16) for c in COOKIE.findall("\n".join(hosts.flows("table=6")))}
            assert set(range(1, answered + 1)) <= singles <= set(range(1, answered + 2))
            bundled = Counter(COOKIE.findall("\n".join(hosts.flows("table=7"))))
            assert list(bundled.values()) == [300], bundled
            assert int(next(iter(bundled)), 16) in {answered, answered + 1}
            answered = max(singles)
    assert path_counts(hosts) == [frames.sent] * 5

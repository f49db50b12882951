# SPDX-License-Identifier: Apache-2.0
"""Every way in which a mirror can fail to work is on its row, and gone when healed (D1).

Before the mirror has ever worked and after, on the embedded database and on a stock one.
"""

import contextlib
import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tests.system.site import PATCH, Site, data, frame
from tools.lab.heliograph import Heliograph, StockSwitch
from tools.lab.lab import Lab
from tools.lab.namespaces import veth
from tools.lab.openvswitch import Database, Tools
from tools.lab.processes import PATIENCE, eventually
from tools.lab.watchdog import Watchdog

TO_OUT = "select_src_port=@tap1 output_port=@OUT"
TO_VLAN = "select_src_port=@tap1 output_vlan=111"
TO_PATCH = "select_src_port=@tap1 output_port=@q0"
TAG = "8100006f"
WIRES = {"p0": "br0", "p1": "br1", "r0": "br0", "r1": "br1"}


@dataclass(frozen=True)
class Place:
    """A mirror of br0, and the existing device that is its output as a rule."""

    site: Site
    number: int

    @property
    def out(self) -> str:
        return f"out{self.number}"

    @property
    def mirror(self) -> str:
        return f"m{self.number}"

    def link(self, words: str) -> None:
        """`ip link WORDS` in the switch's namespace."""
        self.site.switch.host.ip("link " + words.replace("OUT", self.out))

    def vsctl(self, words: str) -> None:
        """Words of ovs-vsctl; OUT and MIRROR are this place's, @NAME is any port's UUID."""
        words = words.replace("OUT", self.out).replace("MIRROR", self.mirror)
        names = sorted(set(re.findall(r"=@(\w+)", words)) - {"back", "m", "x"})
        gets = [f"-- --id=@{name} get port {name}" for name in names]
        self.site.ovs.vsctl(" ".join([*gets, "--", words]))

    def told(self) -> str:
        return self.site.said(self.mirror)


Deed = str | Callable[[Place], None]  # words of ovs-vsctl, or what happens outside the database


@dataclass(frozen=True)
class Fault:
    """What breaks a mirror, what its row says then, and what mends it.

    A copy of a frame that tap1 sends proves that it works: on port `seen`, with the tags `tag`.
    """

    words: str
    breaks: Deed
    mends: Deed
    columns: str = TO_OUT
    seen: str = "OUT"
    tag: str = ""


def links(*lines: str) -> Callable[[Place], None]:
    """`ip link` in the switch's namespace, line by line."""

    def deed(place: Place) -> None:
        for line in lines:
            place.link(line)

    return deed


def there(words: str) -> Callable[[Place], None]:
    """`ip link set WORDS` on the other end of the output."""

    def deed(place: Place) -> None:
        place.site.guests[place.out].ip(f"link set {place.out} {words}")

    return deed


def plug_in(place: Place) -> None:
    out = place.out
    veth((place.site.switch.host, out), (place.site.guests[out], out))


def come_home(place: Place) -> None:
    host = place.site.switch.host
    place.site.guests["tap4"].ip(f"link set {place.out} netns {host.name}")
    host.ip(f"link set {place.out} up")


def go_away(place: Place) -> None:
    place.link(f"set OUT netns {place.site.guests['tap4'].name}")


def helio(words: str) -> Callable[[Place], None]:
    """By `helio vsctl`, which knows newer columns than the distribution's ovs-vsctl."""

    def deed(place: Place) -> None:
        place.site.switch.helio_vsctl(*words.replace("MIRROR", place.mirror).split())

    return deed


# What happens to devices is told when the kernel says it; so all of these happen at once.
EVENTS = {
    "its device deleted": Fault("No such device", links("delete OUT"), plug_in),
    "its device renamed": Fault(
        "No such device",
        links("set OUT down", "set OUT name xOUT"),
        links("set xOUT name OUT", "set OUT up"),
    ),
    "its device gone elsewhere": Fault("No such device", go_away, come_home),
    "its device down": Fault("OUT is down", links("set OUT down"), links("set OUT up")),
    "nobody at its other end": Fault("OUT is down", there("down"), there("up")),
    "its device taken by a bridge of the kernel": Fault(
        "belongs to hub", links("set OUT master hub"), links("set OUT nomaster")
    ),
}

BR0 = ("br0", "tap1", "tap2", "q0", *(f"out{number}" for number in range(len(EVENTS))))

# What is wrong in the database is told with `cur_cfg`, when ovs-vsctl returns.
FAULTS = {
    "no output": Fault(
        "has no output", "clear mirror MIRROR output_port", "set mirror MIRROR output_port=@OUT"
    ),
    "both outputs": Fault(
        "both output_port and output_vlan",
        "set mirror MIRROR output_vlan=111",
        "clear mirror MIRROR output_vlan",
    ),
    "output on another bridge": Fault(
        "output_port is not on bridge br0",
        "set mirror MIRROR output_port=@tap3",
        "set mirror MIRROR output_port=@OUT",
    ),
    "output deleted": Fault(
        "has no output",
        "del-port OUT",
        "add-port br0 OUT -- --id=@back get port OUT -- set mirror MIRROR output_port=@back",
    ),
    "output of an unknown type": Fault(
        "not supported yet", "set interface OUT type=geneve", 'set interface OUT type=\\"\\"'
    ),
    "output a bond": Fault(
        "bonds are not supported yet",
        "-- --id=@x create interface name=other -- add port OUT interfaces @x",
        "-- --id=@x get interface other -- remove port OUT interfaces @x",
    ),
    "nobody carries the output VLAN": Fault(
        "carries its output_vlan 111",
        " -- ".join(f"set port {name} trunks=0" for name in BR0),
        " -- ".join(f"clear port {name} trunks" for name in BR0),
        TO_VLAN,
        tag=TAG,
    ),
    "copies go round": Fault(
        "without end",
        " -- ".join(f"add-port {bridge} {name} trunks=111" for name, bridge in WIRES.items()),
        " -- ".join(f"del-port {name}" for name in WIRES),
        TO_VLAN,
        tag=TAG,
    ),
    "selects nothing": Fault(
        "selects no port",
        "clear mirror MIRROR select_src_port",
        "set mirror MIRROR select_src_port=@tap1",
    ),
    "selects a port of another bridge": Fault(
        "not on bridge br0",
        "set mirror MIRROR select_src_port=@tap3",
        "set mirror MIRROR select_src_port=@tap1",
    ),
    "selects patch ports only": Fault(
        "only patch ports",
        "set mirror MIRROR select_src_port=@q0",
        "set mirror MIRROR select_src_port=@tap1",
    ),
    "a snaplen through a patch port": Fault(
        "does not pass a patch port",
        "set mirror MIRROR snaplen=100",
        "clear mirror MIRROR snaplen",
        TO_PATCH,
        "tap3",
    ),
    "a patch port without peer": Fault(
        "has no peer",
        "remove interface q0 options peer",
        "set interface q0 options:peer=q1",
        TO_PATCH,
        "tap3",
    ),
    "a patch port whose peer is deleted": Fault(
        "No usable peer",
        "del-port q1",
        "add-port br1 q1 -- set interface q1 type=patch options:peer=q0",
        TO_PATCH,
        "tap3",
    ),
}

FILTER = Fault(
    "filter is not supported",
    helio("set mirror MIRROR filter=tcp"),
    helio("clear mirror MIRROR filter"),
)


@pytest.fixture(params=["embedded", "stock"])
def anywhere(request: pytest.FixtureRequest, lab: Lab) -> Site:
    """The two bridges on either database, with what the faults need."""
    if request.param == "stock":
        database = Database(lab, lab.namespace("host"))
        switch: Heliograph = StockSwitch(lab, database)
        ovs = database.tools
    else:
        switch = Heliograph(lab)
        ovs = Tools(switch.rundir)
    switch.start()
    site = Site.build(lab, switch, ovs)
    for number in range(len(EVENTS)):
        site.uplink("br0", f"out{number}")
    for words in "add hub type bridge", "add p0 type veth peer p1", "add r0 type veth peer r1":
        switch.host.ip(f"link {words}")
    ovs.vsctl(PATCH.format("q0", "q1"))
    return site


def works(place: Place, fault: Fault) -> bool:
    """Whether a frame's copy arrives, and one only. (The original is in VLAN 0, and flooded.)"""
    site = place.site
    target = frame(b"\x02\0\0\0\0\x77", tag=fault.tag)
    with site.capture(fault.seen.replace("OUT", place.out)) as copies:
        site.send("tap1", frame(target[:6]))
        return data(copies.collect(1, quiet=0.05, timeout=2.0)).count(target) == 1


def check(site: Site, faults: dict[str, Fault], *, at_once: bool) -> list[str]:
    """What is wrong with how some faults are told that have nothing to do with each other."""
    wrong = []
    places = {name: Place(site, number) for number, name in enumerate(faults)}

    def expect(condition: Callable[[Place, Fault], bool], what: str, patience: float) -> None:
        deadline = time.monotonic() + patience
        for name, place in places.items():
            met = functools.partial(condition, place, faults[name])
            if not eventually(met, max(deadline - time.monotonic(), 0), interval=0.02):
                wrong.append(f"{name}: {what}: {place.told()!r}")

    def do(deeds: dict[str, Deed], create: dict[str, str] | None = None) -> None:
        for name, deed in deeds.items():
            words = create[name] if create else ""
            if not isinstance(deed, str):
                deed(places[name])
            if words or isinstance(deed, str):
                places[name].vsctl(f"{words} -- {deed}" if isinstance(deed, str) else words)

    breaks = {name: fault.breaks for name, fault in faults.items()}
    mends = {name: fault.mends for name, fault in faults.items()}
    create = {
        name: f"--id=@m create mirror name=MIRROR {fault.columns} -- add bridge br0 mirrors @m"
        for name, fault in faults.items()
    }
    patience = 0.0 if at_once else PATIENCE
    for when in "at first", "later":
        do(breaks, create if when == "at first" else None)
        expect(lambda p, f: f.words.replace("OUT", p.out) in p.told(), f"not told {when}", patience)
        do(mends)
        expect(lambda p, f: p.told() == "", f"told {when} though healed", patience)
        expect(works, f"does not work {when} though healed", PATIENCE)
    site.ovs.vsctl("clear bridge br0 mirrors")
    return wrong


def check_the_33rd(site: Site) -> None:
    """The mirror that comes last in the order of the rows has no place; it has one when another
    leaves, and one that has its place keeps it."""
    words = "-- --id=@o get port out0"
    create = " -- --id=@m{0} create mirror name=m{0} select_all=true output_port=@o"
    create += " -- add bridge br0 mirrors @m{0}"
    site.ovs.vsctl(words + create.format(0))
    site.ovs.vsctl(words + "".join(create.format(number) for number in range(1, 33)))
    listed = site.ovs.vsctl("--columns=name,external_ids --format=csv --no-headings list mirror")
    (off,) = (line for line in listed.splitlines() if "32 mirrors already" in line)
    assert not off.startswith("m0,")
    site.ovs.vsctl("-- --id=@m get mirror m0 -- remove bridge br0 mirrors @m")
    assert "heliograph-error" not in site.ovs.vsctl("list mirror")
    site.ovs.vsctl("clear bridge br0 mirrors")


def test_departure_1_every_fault_is_told_and_healed(anywhere: Site) -> None:
    """Rules 91 to 94 among them."""
    wrong = check(anywhere, EVENTS, at_once=False)
    for name, fault in FAULTS.items():
        loops = "go round" in name
        with Watchdog(anywhere.lab) if loops else contextlib.nullcontext():
            wrong += check(anywhere, {name: fault}, at_once=True)
    assert not wrong, "\n".join(wrong)
    check_the_33rd(anywhere)
    for table in "bridge", "port":
        assert "heliograph-error" not in anywhere.ovs.vsctl(f"list {table}")
    assert set(anywhere.ovs.vsctl("--columns=error list interface").split()) == {"error", ":", "[]"}


def test_departure_1_a_filter(site: Site) -> None:
    """A column that the stock database does not have. The mirror is there first, as only
    `helio vsctl` can write it."""
    site.uplink("br0", "out0")
    place = Place(site, 0)
    place.vsctl(f"--id=@m create mirror name=MIRROR {TO_OUT} -- add bridge br0 mirrors @m")
    assert place.told() == ""
    for deed, words in ((FILTER.breaks, FILTER.words), (FILTER.mends, "")):
        assert not isinstance(deed, str)
        deed(place)
        assert (words in place.told()) if words else place.told() == ""
    assert works(place, FILTER)

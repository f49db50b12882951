# SPDX-License-Identifier: Apache-2.0
"""`make demo-erspan`: a port mirrored to another host, through GRE, ERSPAN II and ERSPAN III.

Prints what it does as it does it, compares what happened with what it announced, removes
everything it made, and exits with 1 if anything was different.
"""

import sys

from tools.lab.capture import Tcpdump
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import eventually
from tools.lab.tshark import GOOD, Decoded, decode_file
from tools.stage import PINGS, Claims, Stage, perform

HOST, COLLECTOR = "10.9.0.1", "10.9.0.2"
KEY, SESSION, INDEX, HARDWARE, VLAN = 0x1000, 77, 0x10, 0x2A, 5
TAG = bytes((0x81, 0x00, 0, VLAN))
ECHOES = 2 * PINGS  # requests and replies
REQUEST_SOURCE = "10.7.0.1"
UNIT = {0: 100e-6, 1: 100e-9}  # seconds, of the granularities that stand for a unit of time
PATIENCE = 0.05  # seconds between a frame's timestamp and its capture, more or less
MTU = 1600  # of the underlay, so that a full frame fits with the outer headers


class DemoErspan(Stage):
    """What tap1 of the switch host says and hears is seen on another host."""

    def __init__(self, lab: Lab, claim: Claims) -> None:
        super().__init__(lab, claim)
        self.far = Stage(lab, claim, "collector")
        self.guests: dict[str, Namespace] = {}

    def build(self) -> None:
        collector = self.far.switch.host
        print(
            "\nA switch host and a collector host, joined by a wire whose MTU has room for outer"
            "\nheaders (IPv6 is off, so that nobody talks unasked):\n"
        )
        for namespace in self.switch.host, collector:
            for devices in "all", "default":
                namespace.set_sysctl(f"ipv6/conf/{devices}/disable_ipv6", "1")
        for words in (
            f"link add under0 type veth peer name under0 netns {collector.name}",
            f"address add {HOST}/24 dev under0",
            f"link set under0 mtu {MTU} up",
        ):
            print(f"$ ip {words}")
            self.switch.host.ip(words)
        for words in f"address add {COLLECTOR}/24 dev under0", f"link set under0 mtu {MTU} up":
            print(f"$ ip -n {collector.name} {words}")
            collector.ip(words)
        print("\nA switch with two internal ports, each in a network namespace:\n")
        self.start()
        self.vsctl("add-br br0")
        for port, address in ("tap1", f"{REQUEST_SOURCE}/24"), ("tap2", "10.7.0.2/24"):
            self.guests[port] = self.guest(port, "br0", port, address)
        eventually(lambda: self.guests["tap1"].ping("10.7.0.2", 1) == 1)
        eventually(lambda: self.switch.host.ping(COLLECTOR, 1) == 1)

    def watch(self) -> tuple[Tcpdump, list[bytes]]:
        """What comes to the collector while tap1 pings tap2, and the frames that those two saw."""
        outer = self.tcpdump(self.far.switch.host, "under0", "ip proto 47")
        inner = [self.tcpdump(self.guests[port], port, "icmp") for port in self.guests]
        self.ping(self.guests["tap1"], "10.7.0.2")
        for capture in (outer, *inner):
            capture.stop()
        return outer, sorted(frame.data for capture in inner for frame in capture.frames())

    def show(self, capture: Tcpdump) -> list[str]:
        lines = capture.text("-t", "-e")
        print("\nwhat tcpdump captured:", *lines, sep="\n")
        return lines

    def replace(self, old: str, name: str, options: str) -> None:
        """Another tunnel port instead of the mirror's output."""
        self.vsctl(
            f"del-port {old} -- add-port br0 {name}"
            f" -- set interface {name} {options} options:remote_ip={COLLECTOR}"
        )
        self.vsctl(f"-- --id=@out get port {name} -- set mirror m0 output_port=@out")

    def gre(self) -> None:
        print("\nA GRE tunnel to the collector, and a mirror of tap1, both directions, into it:\n")
        self.vsctl(
            f"add-port br0 gre0 -- set interface gre0 type=gre options:key={KEY:#x}"
            f" options:remote_ip={COLLECTOR}"
        )
        self.vsctl(
            "-- --id=@tap1 get port tap1 -- --id=@gre0 get port gre0"
            " -- --id=@m create mirror name=m0 select_src_port=@tap1 select_dst_port=@tap1"
            " output_port=@gre0 -- set bridge br0 mirrors=@m"
        )
        outer, originals = self.watch()
        head = f" length 140: {HOST} > {COLLECTOR}: GREv0, key={KEY:#x}, proto TEB (0x6558), length"
        lines = self.show(outer)
        self.claim(
            len(lines) == ECHOES and all(head in line for line in lines),
            f"that is each echo once, as GREv0 with key {KEY:#x} and an Ethernet frame (TEB) in it",
        )
        self.claim(
            sorted(frame.data[42:] for frame in outer.frames()) == originals,
            "behind 42 bytes of outer headers are the frames that tap1 and tap2 saw, whole",
        )
        self.decoded(outer)

    def decoded(self, capture: Tcpdump) -> list[Decoded]:
        """The copies as tshark reads them; shows the first one's tunnel headers."""
        words = ["tshark", "-n", "-r", str(capture.file), "-Y", "frame.number==1", "-O"]
        print("\n$", *words, "gre,erspan")
        print(self.far.switch.host.run(*words, "gre,erspan").stdout, end="")
        copies = [copy for copy in decode_file(capture.file) if "gre" in copy.protocols]
        statuses = [copy.checksums for copy in copies]
        self.claim(
            statuses == [{"ip": [GOOD, GOOD], "icmp": [GOOD]}] * ECHOES
            and not any(copy.errors for copy in copies),
            "tshark finds no error; all checksums are right: of the outer and inner IP, of ICMP",
        )
        return copies

    def erspan(self, version: int, options: str, fields: dict[str, int]) -> list[Decoded]:
        """Through ERSPAN, whose header says all that `fields` do."""
        old, name = ("gre0", "erspan1") if version == 1 else ("erspan1", "erspan2")
        self.replace(old, name, f"type=erspan options:erspan_ver={version} {options}")
        outer, originals = self.watch()
        self.show(outer)
        size = 50 if version == 1 else 54
        inner = [frame.data[size:] for frame in outer.frames()]
        self.claim(
            sorted(data[:12] + data[16:] for data in inner) == originals
            and all(data[12:16] == TAG for data in inner),
            f"behind {size} bytes of outer headers is each echo once, with the tag of its VLAN",
        )
        copies = self.decoded(outer)
        for name, value in fields.items():
            found = [copy.numbers(name) for copy in copies]
            self.claim(found == [[value]] * ECHOES, f"{name} is {value:#x} in each")
        numbers = [copy.numbers("gre.sequence_number") for copy in copies]
        self.claim(
            numbers == [[number] for number in range(ECHOES)],
            f"gre.sequence_number goes from 0 to {ECHOES - 1}",
        )
        return copies

    def second(self) -> None:
        print(
            f"\nThe hosts get into VLAN {VLAN}, which the header of ERSPAN can tell. Type II first;"
            "\nOpen vSwitch calls it version 1, and erspan_idx and erspan_hwid are hexadecimal:\n"
        )
        self.vsctl(f"set port tap1 tag={VLAN} -- set port tap2 tag={VLAN}")
        fields = {
            "gre.flags_and_version": 0x1000,  # a sequence number, and no key
            "gre.proto": 0x88BE,
            "erspan.version": 1,
            "erspan.vlan": VLAN,
            "erspan.cos": 0,
            "erspan.encap": 3,  # the tag is left in the frame
            "erspan.truncated": 0,
            "erspan.spanid": SESSION,
            "erspan.reserved": 0,
            "erspan.index": INDEX,
        }
        self.erspan(1, f"options:key={SESSION} options:erspan_idx={INDEX:x}", fields)

    def third(self) -> None:
        print("\nAnd type III, version 2 to Open vSwitch:\n")
        fields = {
            "gre.flags_and_version": 0x1000,
            "gre.proto": 0x22EB,
            "erspan.version": 2,
            "erspan.vlan": VLAN,
            "erspan.cos": 0,
            "erspan.bso": 0,  # neither bad nor short nor oversized
            "erspan.truncated": 0,
            "erspan.spanid": SESSION,
            "erspan.sgt": 0,
            "erspan.p": 1,
            "erspan.ft": 0,  # Ethernet
            "erspan.hw": HARDWARE,
            "erspan.o": 0,
        }
        options = f"options:key={SESSION} options:erspan_hwid={HARDWARE:x}"
        copies = self.erspan(2, options, fields)
        requests = [REQUEST_SOURCE in copy["ip.src"] for copy in copies]
        self.claim(
            [copy.numbers("erspan.direction") for copy in copies]
            == [[0 if request else 1] for request in requests],
            "erspan.direction is 0 for what came from tap1, 1 for what went to it",
        )
        units = {unit for copy in copies for unit in copy.numbers("erspan.gra")}
        self.claim(len(units) == 1 and units <= set(UNIT), f"erspan.gra is {units}")
        unit = UNIT.get(units.pop(), 0.0) if units else 0.0
        stamps = [copy.numbers("erspan.timestamp")[0] * unit for copy in copies]
        times = [float(copy["frame.time_epoch"][0]) for copy in copies]
        passed = [abs(s - stamps[0] - t + times[0]) for s, t in zip(stamps, times, strict=True)]
        self.claim(
            bool(passed) and max(passed) < PATIENCE,
            f"erspan.timestamp, in its unit of {unit:g} s, goes by with the time of the capture",
        )

    def terminate(self) -> None:
        far = self.far
        print(
            "\nThe collector host gets a Heliograph as well. Its tunnel port takes the frames out,"
            f"\nand a mirror shows them on tap9, an access port of VLAN {VLAN}:\n"
        )
        far.start()
        far.vsctl("add-br br0")
        far.vsctl(
            "add-port br0 erspan2 -- set interface erspan2 type=erspan options:erspan_ver=2"
            f" options:key={SESSION} options:remote_ip={HOST}"
        )
        watcher = far.guest("tap9", "br0", "tap9", None)
        far.vsctl(f"set port tap9 tag={VLAN}")
        far.vsctl(
            "-- --id=@in get port erspan2 -- --id=@tap9 get port tap9 -- --id=@m create mirror"
            " name=m1 select_src_port=@in output_port=@tap9 -- set bridge br0 mirrors=@m"
        )
        seen = far.tcpdump(watcher, "tap9", "icmp")
        _outer, originals = self.watch()
        seen.stop()
        self.show(seen)
        self.claim(
            sorted(frame.data for frame in seen.frames()) == originals,
            "that is each echo once, byte for byte as tap1 and tap2 saw it",
        )
        for stage in self, far:
            print(f"$ export OVS_RUNDIR={stage.switch.rundir}")
            said = stage.vsctl("--columns=name,external_ids list mirror")
            stage.claim("heliograph-error" not in said, "the mirror says that it works")

    def run(self) -> None:
        self.build()
        self.gre()
        self.second()
        self.third()
        self.terminate()
        print("\n$ ip link delete under0")
        self.switch.host.ip("link delete under0")
        self.far.finish()
        self.finish()


if __name__ == "__main__":
    sys.exit(perform(lambda lab, claim: DemoErspan(lab, claim).run()))

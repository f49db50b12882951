# SPDX-License-Identifier: Apache-2.0
"""`make demo`: port mirroring live, in network namespaces of its own.

Prints each command before it runs it and the capture after it, compares what happened with
what it announced, removes everything it made, and exits with 1 if anything was different.
"""

import contextlib
import os
import re
import shlex
import sys

from tools.lab.capture import Tcpdump
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab, LeftoverError, leftovers, sweep
from tools.lab.namespaces import Namespace
from tools.lab.processes import CommandError, eventually

REFRESH = 5  # seconds between two writes of the statistics, the default and minimum
PINGS = 3


class Claims:
    """What was announced, held against what happened."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def __call__(self, true: bool, text: str) -> None:
        print(f"  {'ok ' if true else 'NO:'} {text}")
        if not true:
            self.broken.append(text)


class Demo:
    """The experiment, step by step, on a switch with three guests."""

    def __init__(self, lab: Lab, claim: Claims) -> None:
        self.lab = lab
        self.claim = claim
        self.switch = Heliograph(lab, ephemeral=True)
        self.guests: list[Namespace] = []

    def vsctl(self, words: str) -> str:
        """Show and run `helio vsctl WORDS`, show and return what it printed."""
        print(f"$ helio vsctl {words}")
        printed = self.switch.helio_vsctl(*shlex.split(words))
        print(printed, end="")
        return printed

    def ping(self) -> None:
        """ns1 pings tap2's address."""
        print(f"$ nsenter --net={self.guests[0].path} ping -c {PINGS} 10.7.0.2")
        answered = self.guests[0].ping("10.7.0.2", PINGS)
        self.claim(answered == PINGS, f"{answered} of {PINGS} echo requests were answered")

    def build(self) -> None:
        print(
            "\nA switch with three internal ports, each in a network namespace of its own"
            "\n(with IPv6 off there, so that nobody talks unasked):\n"
        )
        rundir = self.switch.rundir
        print(f"$ nsenter --net={self.switch.host.path} helio run --ephemeral --rundir {rundir} &")
        self.switch.start()
        print(f"$ export OVS_RUNDIR={rundir}")
        self.vsctl("add-br br0")
        for number, address in (1, "10.7.0.1/24"), (2, "10.7.0.2/24"), (3, None):
            port = f"tap{number}"
            self.vsctl(f"add-port br0 {port} -- set interface {port} type=internal")
            self.guests.append(self.quiet_namespace(f"ns{number}"))
            name = self.guests[-1].name
            print(f"$ ip link set {port} netns {name}   # there up, {address or 'no address'}")
            self.switch.move(port, self.guests[-1], address)
        eventually(lambda: self.guests[0].ping("10.7.0.2", 1) == 1)

    def quiet_namespace(self, name: str) -> Namespace:
        made = self.lab.namespace(name)
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for devices in "all", "default":
                made.set_sysctl(f"ipv6/conf/{devices}/disable_ipv6", "1")
        return made

    def silence(self, why: str) -> None:
        """Ping while tcpdump listens on tap3, which must not see it."""
        print(f"\n{why}: tap3 sees nothing of what ns1 and ns2 say to each other.\n")
        print(f"$ nsenter --net={self.guests[2].path} tcpdump -n -i tap3 'arp or icmp' &")
        capture = Tcpdump(self.lab, self.guests[2], "tap3", "arp or icmp")
        self.ping()
        capture.stop()
        print(*capture.text("-t"), sep="\n", end="")
        self.claim(capture.frames() == [], "tcpdump on tap3 captured nothing")

    def mirror(self) -> None:
        print("\nA mirror: what leaves the switch towards tap1 is copied to tap3.\n")
        capture = Tcpdump(self.lab, self.guests[2], "tap3")
        print(f"$ nsenter --net={self.guests[2].path} tcpdump -n -i tap3 &")
        print(f"$ ip -n {self.guests[0].name} neigh flush all   # so that it asks for tap2 again")
        self.guests[0].ip("neigh flush all")
        self.vsctl(
            "-- --id=@tap1 get port tap1 -- --id=@tap3 get port tap3"
            " -- --id=@m create mirror name=m0 select_dst_port=@tap1 output_port=@tap3"
            " -- set bridge br0 mirrors=@m"
        )
        self.claim(self.statistics() == (0, 0), "the mirror's counters begin at 0")
        self.ping()
        print(f"\nThe counters in the database are refreshed at most {REFRESH} s later ...\n")
        eventually(lambda: self.packets() > PINGS, REFRESH + 1)
        packets, octets = self.statistics()
        capture.stop()
        print("\nwhat tcpdump on tap3 captured:")
        lines = capture.text("-t", "-e")
        print(*lines, sep="\n")
        replies = [line for line in lines if "10.7.0.2 > 10.7.0.1: ICMP echo reply" in line]
        answers = [line for line in lines if "Reply 10.7.0.2 is-at" in line]
        self.claim(
            lines == answers + replies and (len(answers), len(replies)) == (1, PINGS),
            f"that is 1 ARP reply and {PINGS} echo replies, all towards tap1, and nothing else",
        )
        self.claim(
            (packets, octets) == (len(lines), sum(frame.length for frame in capture.frames())),
            f"the mirror counted exactly them: {packets} frames, {octets} bytes",
        )

    def packets(self) -> int:
        return self._counters(self.switch.helio_vsctl("get", "mirror", "m0", "statistics"))[0]

    def statistics(self) -> tuple[int, int]:
        """Show the mirror's row; frames and bytes it counted."""
        return self._counters(self.vsctl("list mirror"))

    @staticmethod
    def _counters(printed: str) -> tuple[int, int]:
        found = {key: int(value) for key, value in re.findall(r"tx_(\w+)=(\d+)", printed)}
        return found.get("packets", -1), found.get("bytes", -1)

    def run(self) -> None:
        self.build()
        self.silence("Without a mirror")
        self.mirror()
        print("\nThe mirror is removed:\n")
        self.vsctl("clear bridge br0 mirrors")
        self.silence("Without a mirror again")
        print("\n$ kill %1   # the switch; --ephemeral takes its devices and programs along")
        self.claim(self.switch.stop() == 0, "helio run ended with exit code 0")
        left = self.switch.host.ip("-br link show").splitlines()
        self.claim(len(left) == 1, "no device but lo is left in the switch's namespace")


def main() -> int:
    if os.geteuid() != 0:
        print("the demo makes network namespaces: run it as root", file=sys.stderr)
        return 4
    sweep()
    claim = Claims()
    lab = Lab()
    try:
        with lab:
            Demo(lab, claim).run()
    except (CommandError, LeftoverError) as error:
        claim.broken.append(str(error))
    left = leftovers(lab.token)
    claim(not left, f"everything is removed: namespaces, devices, processes {left or ''}")
    if claim.broken:
        print("\nNot as announced:", *claim.broken, sep="\n  ")
        return 1
    print("\nAll of it was as announced.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""`make demo`: port mirroring live, in network namespaces of its own.

Prints each command before it runs it and the capture after it, compares what happened with
what it announced, removes everything it made, and exits with 1 if anything was different.
"""

import re
import sys

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import eventually
from tools.stage import PINGS, Claims, Stage, perform

REFRESH = 5  # seconds between two writes of the statistics, the default and minimum


class Demo(Stage):
    """The experiment, step by step, on a switch with three guests."""

    def __init__(self, lab: Lab, claim: Claims) -> None:
        super().__init__(lab, claim)
        self.guests: list[Namespace] = []

    def build(self) -> None:
        print(
            "\nA switch with three internal ports, each in a network namespace of its own"
            "\n(with IPv6 off there, so that nobody talks unasked):\n"
        )
        self.start()
        self.vsctl("add-br br0")
        for number, address in (1, "10.7.0.1/24"), (2, "10.7.0.2/24"), (3, None):
            self.guests.append(self.guest(f"ns{number}", "br0", f"tap{number}", address))
        eventually(lambda: self.guests[0].ping("10.7.0.2", 1) == 1)

    def silence(self, why: str) -> None:
        """Ping while tcpdump listens on tap3, which must not see it."""
        print(f"\n{why}: tap3 sees nothing of what ns1 and ns2 say to each other.\n")
        capture = self.tcpdump(self.guests[2], "tap3", "arp or icmp")
        self.ping(self.guests[0], "10.7.0.2")
        capture.stop()
        print(*capture.text("-t"), sep="\n", end="")
        self.claim(capture.frames() == [], "tcpdump on tap3 captured nothing")

    def mirror(self) -> None:
        print("\nA mirror: what leaves the switch towards tap1 is copied to tap3.\n")
        capture = self.tcpdump(self.guests[2], "tap3")
        print(f"$ ip -n {self.guests[0].name} neigh flush all   # so that it asks for tap2 again")
        self.guests[0].ip("neigh flush all")
        self.vsctl(
            "-- --id=@tap1 get port tap1 -- --id=@tap3 get port tap3"
            " -- --id=@m create mirror name=m0 select_dst_port=@tap1 output_port=@tap3"
            " -- set bridge br0 mirrors=@m"
        )
        self.claim(self.statistics() == (0, 0), "the mirror's counters begin at 0")
        self.ping(self.guests[0], "10.7.0.2")
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
        self.finish()


if __name__ == "__main__":
    sys.exit(perform(lambda lab, claim: Demo(lab, claim).run()))

# SPDX-License-Identifier: Apache-2.0
"""`make demo-flows`: flow tables that rewrite frames, and mirrors that see what the tables did.

The real ovs-vsctl and ovs-ofctl configure the switch. Prints what it does as it does it, compares
what happened with what it announced, removes everything it made, and exits with 1 if anything was
different.
"""

import re
import shlex
import sys
from collections.abc import Callable, Sequence

from tools.lab.capture import Capture, Tcpdump
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.stage import Claims, Stage, perform

VLAN, ASKED, SERVED = 100, 1111, 2222
CLIENT, SERVER = "10.7.0.1", "10.7.0.2"
QUESTIONS = 3
TAG = bytes((0x81, 0x00, 0, VLAN))
PORT, CHECKSUM = slice(36, 38), slice(40, 42)  # in a frame without tag and IP options
FLOWS = f"""\
table=0, in_port=tap1, udp, tp_dst={ASKED}, actions=mod_vlan_vid:{VLAN}, resubmit(,1)
table=1, udp, actions=mod_tp_dst:{SERVED}, output:tap2
"""
ASK = f'for n in $(seq {QUESTIONS}); do echo "question $n" > /dev/udp/{SERVER}/{ASKED}; done'
UDP = f"udp dst port {ASKED} or (vlan and udp dst port {SERVED})"
COLUMN = 64


def udp_sum(frame: bytes) -> int:
    """The Internet checksum over pseudo header and datagram; 0 where the one in it is right."""
    packet = frame[14:]
    datagram = packet[20 : int.from_bytes(packet[2:4], "big")]
    data = packet[12:20] + bytes((0, 17)) + datagram[4:6] + datagram + bytes(len(datagram) % 2)
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    return -total % 0xFFFF


def as_output(frame: bytes) -> bytes:
    """What the flows make of a question."""
    changed = bytearray(frame)
    changed[PORT] = SERVED.to_bytes(2, "big")
    changed[CHECKSUM] = bytes(2)
    changed[CHECKSUM] = udp_sum(bytes(changed)).to_bytes(2, "big")
    return bytes(changed[:12]) + TAG + bytes(changed[12:])


class DemoFlows(Stage):
    """tap1 asks a server behind tap2, which is in a VLAN and at a port that tap1 does not know."""

    def __init__(self, lab: Lab, claim: Claims) -> None:
        super().__init__(lab, claim)
        self.tools = Tools(self.switch.rundir)
        self.guests: dict[str, Namespace] = {}

    def ovs(self, words: str) -> str:
        """Show and run a tool of Open vSwitch, show and return what it printed."""
        print(f"$ {words}")
        name, *rest = shlex.split(words)
        printed = self.tools.run(name, *rest).stdout
        print(printed, end="")
        return printed

    def build(self) -> None:
        print(
            "\nA bridge that forwards nothing but what flows say, and four ports, each in a network"
            "\nnamespace (with IPv6 off there, so that nobody talks unasked):\n"
        )
        self.start()
        self.ovs("ovs-vsctl add-br br0 -- set bridge br0 fail_mode=secure")
        for number in 1, 2, 3, 4:
            port = f"tap{number}"
            self.ovs(
                f"ovs-vsctl add-port br0 {port} -- set interface {port} type=internal"
                f" ofport_request={number}"
            )
            guest = self.guests[port] = self.quiet_namespace(f"ns{number}")
            address = f"{CLIENT}/24" if number == 1 else None
            print(
                f"$ ip link set {port} netns {guest.name}   # there up, {address or 'no address'}"
            )
            self.switch.move(port, guest, address)
        client, mac = self.guests["tap1"], self.guests["tap2"].mac("tap2").hex(":")
        words = f"neigh add {SERVER} lladdr {mac} dev tap1"
        print(f"$ ip -n {client.name} {words}")
        client.ip(words)
        words = "ethtool -K tap1 tx off"
        print(f"$ nsenter --net={client.path} {words}   # checksums are whole when it sends")
        client.run(*words.split())

    def flows(self) -> None:
        path = self.lab.path("flows.txt")
        path.write_text(FLOWS)
        print(f"\nTwo tables: the first changes the VLAN, the second the port.\n\n$ cat {path}")
        print(FLOWS, end="")
        self.ovs(f"ovs-ofctl add-flows br0 {path}")
        lines = self.ovs("ovs-ofctl --names --no-stats dump-flows br0").splitlines()
        self.claim(
            [self.flow_words(line) for line in lines]
            == [self.flow_words(line) for line in FLOWS.splitlines()],
            "the switch tells the flows as they were added",
        )

    @staticmethod
    def flow_words(line: str) -> set[str]:
        """Match and actions, whatever the order and punctuation; table 0 goes without saying."""
        words = line.replace('"', "").replace("actions=", "actions= ").replace(", ", " ").split()
        return set(",".join(words).split(",")) - {"table=0"}

    def mirrors(self) -> None:
        print("\nAn ingress mirror of tap1 to tap3, and an egress mirror of tap2 to tap4:\n")
        self.ovs(
            "ovs-vsctl -- --id=@tap1 get port tap1 -- --id=@tap2 get port tap2"
            " -- --id=@tap3 get port tap3 -- --id=@tap4 get port tap4"
            " -- --id=@in create mirror name=in select_src_port=@tap1 output_port=@tap3"
            " -- --id=@out create mirror name=out select_dst_port=@tap2 output_port=@tap4"
            " -- set bridge br0 mirrors=@in,@out"
        )

    def ask(self, *ports: str) -> tuple[list[bytes], list[Tcpdump]]:
        """The frames in which tap1 asks its questions, and what is seen of them at these ports."""
        client = self.guests["tap1"]
        captures = [self.tcpdump(self.guests[port], port, UDP) for port in ports]
        words = ["bash", "-c", ASK]
        print(f"$ nsenter --net={client.path} {shlex.join(words)}")
        with Capture(client, "tap1", outgoing=True) as sent:
            client.run(*words)
            questions = [frame.data for frame in sent.collect(QUESTIONS)]
        self.claim(len(questions) == QUESTIONS, f"{QUESTIONS} questions are on their way")
        for capture in captures:
            capture.stop()
        return questions, captures

    def compare(self) -> None:
        print(f"\ntap1, which is in no VLAN, asks at port {ASKED}.\n")
        sent, captures = self.ask("tap2", "tap3", "tap4")
        received, copied_in, copied_out = (
            [frame.data for frame in capture.frames()] for capture in captures
        )
        print(f"\n{'the ingress mirror, on tap3':{COLUMN}}the egress mirror, on tap4")
        for left, right in zip(*(self.lines(capture) for capture in captures[1:]), strict=False):
            print(f"{left:{COLUMN}}{right}")
        self.claim(copied_in == sent, "tap3 has each question once, byte for byte as tap1 sent it")
        self.claim(
            copied_out == received and len(received) == QUESTIONS,
            "tap4 has each once, byte for byte as tap2 received it",
        )
        self.claim(
            copied_out == [as_output(frame) for frame in copied_in],
            f"what differs is the tag of VLAN {VLAN}, the port, and the checksum, which is right",
        )
        dumped = self.ovs("ovs-ofctl --names dump-flows br0")
        self.claim(
            dumped.count(f"n_packets={QUESTIONS},") == 2, "the flows have counted each question"
        )

    @staticmethod
    def lines(capture: Tcpdump) -> Sequence[str]:
        """A capture as tcpdump prints it, without MAC addresses, EtherTypes and IP headers."""
        text = "\n".join(capture.text("-t", "-e", "-vv")).replace("\n    ", " ")
        headers = r"\S+ > \S+, ethertype [^,]*, length \d+: |ethertype IPv4[^,]*, "
        noise = rf"{headers}|\(tos.*?, length \d+\) "
        return [re.sub(noise, "", line) for line in text.splitlines()]

    def one_mirror(self) -> None:
        print("\nOne mirror instead that selects both. A frame is copied once ...\n")
        self.ovs(
            "ovs-vsctl -- --id=@tap1 get port tap1 -- --id=@tap2 get port tap2"
            " -- --id=@tap3 get port tap3"
            " -- --id=@m create mirror name=both select_src_port=@tap1 select_dst_port=@tap2"
            " output_port=@tap3 -- set bridge br0 mirrors=@m"
        )
        self.expect(lambda frame: [frame], "tap3 has each question once, as tap1 sent it")
        print("\n... or once more when a flow has changed it, as in Open vSwitch from 3.2 on:\n")
        self.ovs("ovs-vsctl set bridge br0 other_config:mirror-changed-packets=true")
        self.expect(
            lambda frame: [frame, as_output(frame)],
            "tap3 has each question twice: as tap1 sent it, and as tap2 received it",
        )

    def expect(self, copies: Callable[[bytes], list[bytes]], text: str) -> None:
        sent, (copied,) = self.ask("tap3")
        print("", *self.lines(copied), sep="\n")
        wanted = [copy for frame in sent for copy in copies(frame)]
        self.claim([frame.data for frame in copied.frames()] == wanted, text)

    def run(self) -> None:
        self.build()
        self.flows()
        self.mirrors()
        self.compare()
        self.one_mirror()
        self.finish()


if __name__ == "__main__":
    sys.exit(perform(lambda lab, claim: DemoFlows(lab, claim).run()))

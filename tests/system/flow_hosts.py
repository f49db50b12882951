# SPDX-License-Identifier: Apache-2.0
"""A bridge with silent hosts, its flows by ovs-ofctl, and what of the frames sent arrives where."""

import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tests.system.site import MAC1, MAC2, silence
from tools.lab.capture import ETH_P_ALL, Capture
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, one_processor, veth
from tools.lab.openflow import Controller
from tools.lab.openvswitch import Tools, environment, program
from tools.lab.processes import PATIENCE, Process, eventually, run

from heliograph.openflow.codec import Framer, encode
from heliograph.openflow.messages import Hello, TableStatsReply, TableStatsRequest, Version

PROTOCOLS = "protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15"
ALL_VERSIONS = ("OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15")
_HOPS = 6  # devices on the longest way of a frame
_CHANGING = re.compile(r"(?:duration|n_packets|n_bytes|idle_age|hard_age)=[^,]*, ")
_COUNTED = re.compile(r"n_packets=(\d+), n_bytes=(\d+)")


class Hosts:
    """Bridge br0 with ports p1, p2 ... of these numbers; host N has the other end, gN."""

    def __init__(self, lab: Lab, switch: Heliograph, count: int = 4) -> None:
        self.lab, self.switch = lab, switch
        self.tools = Tools(switch.rundir)
        self.guest = lab.namespace("guest")
        self.numbers = tuple(range(1, count + 1))
        silence(switch.host)
        silence(self.guest)
        words = [f"add-br br0 -- set bridge br0 {PROTOCOLS}"]
        for number in self.numbers:
            veth((switch.host, f"p{number}"), (self.guest, f"g{number}"))
            words.append(f"add-port br0 p{number}")
            words.append(f"set interface p{number} ofport_request={number}")
        self.tools.vsctl(" -- ".join(words))
        self._witness = Witness(self.guest)

    @property
    def socket(self) -> Path:
        return self.switch.rundir / "br0.mgmt"

    def controller(self, version: Version = Version.V15) -> Controller:
        return Controller(self.socket, version)

    def ofctl(self, *words: str, stdin: str = "", version: str = "OpenFlow15") -> str:
        """The real `ovs-ofctl -O VERSION WORDS`; returns what it printed."""
        command = [str(program("ovs-ofctl")), "-O", version, *words]
        return run(command, stdin=stdin, env=environment(self.tools.rundir)).stdout

    def refused(self, *words: str, stdin: str = "", version: str = "OpenFlow15") -> str:
        """What ovs-ofctl says as it fails."""
        command = [str(program("ovs-ofctl")), "-O", version, *words]
        done = run(command, stdin=stdin, env=environment(self.tools.rundir), check=False)
        assert done.returncode, f"{words} was not refused"
        return done.stderr

    def differences(self, path: Path) -> list[str]:
        """The lines of diff-flows, of the flows there and those in a file."""
        command = [str(program("ovs-ofctl")), "-O", "OpenFlow15", "diff-flows", "br0", str(path)]
        return run(command, env=environment(self.tools.rundir), check=False).stdout.splitlines()

    def watch(self, *words: str) -> Process:
        """ovs-ofctl in the background; what it prints is in its log."""
        env = environment(self.tools.rundir)
        command = ["sh", "-c", 'exec "$@" 1>&2', "sh", str(program("ovs-ofctl")), *words]
        return self.lab.start(self.switch.host, *command, env=env)

    def replace(self, flows: Sequence[str], groups: Sequence[str] = ()) -> None:
        """These flows and groups alone."""
        self.ofctl("del-flows", "br0")
        self.ofctl("del-groups", "br0")
        if groups:
            self.ofctl("add-groups", "br0", "-", stdin="\n".join(groups))
        self.ofctl("add-flows", "br0", "-", stdin="\n".join(flows))

    def dump(self, *words: str, version: str = "OpenFlow15") -> list[str]:
        """The lines of dump-flows."""
        printed = self.ofctl("dump-flows", "br0", *words, version=version)
        return [line.strip() for line in printed.splitlines() if "cookie=" in line]

    def flows(self, *words: str, version: str = "OpenFlow15") -> list[str]:
        """The lines of dump-flows, without what changes by itself."""
        return [_CHANGING.sub("", line) for line in self.dump(*words, version=version)]

    def counts(self, *words: str) -> dict[str, tuple[int, int]]:
        """Packets and bytes of each of these flows."""
        found = {}
        for line in self.dump(*words):
            counted = _COUNTED.search(line)
            assert counted, line
            found[_CHANGING.sub("", line)] = int(counted[1]), int(counted[2])
        return found

    def tables(self) -> dict[int, tuple[int, int]]:
        """Lookups and matches of each table, which go on for as long as there is the bridge."""
        with closing(self.controller()) as controller:
            replies = controller.send(TableStatsRequest())
        return {
            entry.table_id: (entry.lookups, entry.matched)
            for reply in replies
            if isinstance(reply, TableStatsReply)
            for entry in reply.entries
        }

    def packets(self, *words: str) -> int:
        """The sum over these flows."""
        return sum(packets for packets, _ in self.counts(*words).values())

    def capture(self, number: int) -> Capture:
        return Capture(self.guest, f"g{number}")

    def send(self, in_port: int, *frames: bytes) -> dict[int, list[bytes]]:
        """What arrives at the hosts, of all the frames; those that nothing came to are left out."""
        captures = {number: self.capture(number) for number in self.numbers}
        with one_processor():
            self.guest.send(f"g{in_port}", frames)
            self._witness.wait()
        arrived = {}
        for number, capture in captures.items():
            with capture:
                if found := capture.collect(quiet=0.001):
                    arrived[number] = [frame.data for frame in found]
        return arrived

    def kill_switch(self) -> None:
        """SIGKILL for the switch process; returns when its successor answers."""
        old = self.switch.child("switch")
        os.kill(old, signal.SIGKILL)

        def there() -> bool:
            try:
                return self.switch.child("switch") != old
            except (LookupError, OSError):
                return False

        assert eventually(there)
        self.tools.vsctl(f"set bridge br0 external_ids:killed={old}")

    def log(self) -> str:
        """What the switch has said."""
        return self.switch.process.log_text()


def shared(tokens: list[str]) -> Iterator[Hosts]:
    """The body of a fixture: hosts for the tests of a module, which clear up what they change.

    There is no traceback in the switch's log at the end.
    """
    with Lab() as lab:
        tokens.append(lab.token)
        switch = Heliograph(lab)
        switch.start()
        hosts = Hosts(lab, switch)
        yield hosts
        assert "Traceback" not in hosts.log(), hosts.log()


class Called(Controller):
    """A controller that the switch has called: over a connection that was accepted."""

    def __init__(self, connection: socket.socket, version: Version) -> None:
        self.version = version
        self._socket = connection
        self._socket.settimeout(PATIENCE)
        self._framer = Framer()
        self._xid = 0
        self.unasked = []
        self._socket.sendall(encode(Hello(frozenset({version})), version))


class Witness:
    """Says when all has arrived that was sent before.

    Frames that a processor sends wait in one queue, once for each device that they come to. So
    they are through when frames that were sent later, on a pair of devices beside the switch, have
    come as often.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        veth((namespace, "witness0"), (namespace, "witness1"))

    def wait(self) -> None:
        mark = MAC2 + MAC1 + b"\x88\xb5" + bytes(46)
        near = self._namespace.packet_socket("witness0", 0)
        far = self._namespace.packet_socket("witness1", ETH_P_ALL)
        far.settimeout(PATIENCE)
        with near, far:
            for _ in range(_HOPS):
                near.send(mark)
                far.recv(2048)

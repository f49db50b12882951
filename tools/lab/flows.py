# SPDX-License-Identifier: Apache-2.0
"""A bridge under the same conditions on any switch: ports, flows by ovs-ofctl, frames in and out.

    side = Side(lab, tools, host, settings="datapath_type=netdev")
    side.install(["priority=5,ip,actions=dec_ttl,output:2"])
    arrived = side.send(1, frames)  # by number of the port: the frames, in their order

Ports 1 to 4 are veth devices with a silent other end, LOCAL is the bridge's own device. A flow of
highest priority sends a mark of ours everywhere, behind the frames: what has not come before it
will not come. For that, who sends stays on one processor, for each has a queue of its own.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from tools.lab.capture import Capture
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, one_processor, veth
from tools.lab.openflow import Controller
from tools.lab.openvswitch import Tools, UserspaceSwitch, environment, program
from tools.lab.processes import PATIENCE, run

from heliograph.openflow.actions import Port
from heliograph.openflow.flows import FlowMod, FlowStats, GroupDesc, GroupMod, PacketOut
from heliograph.openflow.messages import Version

BRIDGE = "br0"
NUMBERS = (1, 2, 3, 4)
PORTS = (*NUMBERS, Port.LOCAL)
BATCH = 40  # frames, which have to fit into the queue of a socket
VERSIONS = "protocols=[OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15]"
_TEXT = b" all has come "
_MARK = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x0f\x88\xb6" + _TEXT


class Arrivals(Capture):
    """A capture that ends at a mark."""

    def until(self, mark: bytes, timeout: float = PATIENCE) -> list[bytes]:
        frames: list[bytes] = []
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame = self._receive()
            except TimeoutError:
                break
            if frame is not None and frame.data == mark:
                return frames
            if frame is not None and _TEXT not in frame.data:  # mirrors copy marks
                frames.append(frame.data)
        raise AssertionError(f"the mark behind the frames did not come, but {frames}")


class Side:
    """Bridge `br0` of a switch whose tools are given, in the namespace where it runs."""

    name = "Heliograph"

    def __init__(self, lab: Lab, tools: Tools, host: Namespace, settings: str = "") -> None:
        self.tools, self.host, self.guest = tools, host, lab.namespace("guest")
        for namespace in host, self.guest:
            for devices in "default", "all":
                namespace.set_sysctl(f"ipv6/conf/{devices}/disable_ipv6", "1")
        words = [f"add-br {BRIDGE}"]
        words += [f"set bridge {BRIDGE} fail_mode=secure {VERSIONS} {settings}"]
        places = {int(Port.LOCAL): (host, BRIDGE)}
        for number in NUMBERS:
            name = f"p{number}"
            places[number] = self.guest, f"g{number}"
            veth((host, name), places[number])
            words.append(f"add-port {BRIDGE} {name}")
            words.append(f"set interface {name} ofport_request={number}")
        tools.vsctl(" -- ".join(words))
        host.ip(f"link set {BRIDGE} up")
        host.going()
        self._senders = {n: place[0].packet_socket(place[1], 0) for n, place in places.items()}
        self._arrivals = {number: Arrivals(*place) for number, place in places.items()}
        self._marks = 0

    def close(self) -> None:
        for number in PORTS:
            self._senders[number].close()
            self._arrivals[number].close()

    def ofctl(self, *words: str, stdin: str = "", version: str = "OpenFlow15") -> str:
        """The real `ovs-ofctl -O VERSION WORDS`; returns what it printed."""
        command = [str(program("ovs-ofctl")), "-O", version, *words]
        return run(command, stdin=stdin, env=environment(self.tools.rundir)).stdout

    def clear(self) -> None:
        """No groups, and no flow but the one for the marks."""
        self.ofctl("del-flows", BRIDGE)
        self.ofctl("del-groups", BRIDGE)
        ports = ",".join(
            map(str, map(int, PORTS))
        )  # one by one: ALL leaves out what mirrors output to
        self.ofctl("add-flow", BRIDGE, f"priority=65535,dl_type=0x88b6,actions={ports},IN_PORT")

    def install(
        self, flows: Iterable[str], groups: Sequence[str] = (), version: str = "OpenFlow15"
    ) -> None:
        """These alone, as ovs-ofctl reads them."""
        self.clear()
        if groups:
            self.ofctl("add-groups", BRIDGE, "-", stdin="\n".join(groups))
        self.ofctl("add-flows", BRIDGE, "-", stdin="\n".join(flows), version=version)
        self.settle()

    def change(self, mods: Iterable[FlowMod | GroupMod], version: Version) -> list[str]:
        """These alone, said by a controller; the errors, "" for what is done. `version`: of flows,
        for it is 1.5 that numbers the buckets of groups."""
        self.clear()
        with self._controller(version) as flows, self._controller(Version.V15) as groups:
            errors = [(groups if isinstance(mod, GroupMod) else flows).change(mod) for mod in mods]
        self.settle()
        return errors

    def settle(self) -> None:
        """Until a change is in force."""

    def there(self, version: Version = Version.V15) -> tuple[list[FlowStats], list[GroupDesc]]:
        """The flows, as this version says them, and the groups."""
        with self._controller(version) as flows, self._controller(Version.V15) as groups:
            return flows.flows(), groups.groups()

    def _controller(self, version: Version) -> "closing[Controller]":
        return closing(Controller(self.tools.rundir / f"{BRIDGE}.mgmt", version))

    def send(self, in_port: int, frames: Sequence[bytes]) -> dict[int, list[bytes]]:
        """What leaves by each port, for all of the frames."""
        arrived = self._nothing()
        # The first mark, alone, has itself cached: a frame that is new to a switch may overtake.
        for start in range(-BATCH, len(frames), BATCH):
            self._marked(in_port, frames[max(start, 0) : start + BATCH], arrived)
            assert start >= 0 or not any(arrived.values()), f"late or unasked: {arrived}"
        return arrived

    def packet_out(
        self, message: PacketOut, version: Version
    ) -> tuple[str, dict[int, list[bytes]]]:
        """The error, "" if there is none, and what leaves by each port."""
        arrived = self._nothing()
        self._marked(Port.LOCAL, (), arrived)
        with self._controller(version) as controller:
            error = controller.change(message)
        self._marked(Port.LOCAL, (), arrived)
        return error, arrived

    def _nothing(self) -> dict[int, list[bytes]]:
        return {number: [] for number in PORTS}

    def _marked(
        self, in_port: int, frames: Sequence[bytes], arrived: dict[int, list[bytes]]
    ) -> None:
        """Send frames and a mark, and add what arrives until then."""
        self._marks += 1
        mark = _MARK + self._marks.to_bytes(8, "big") + bytes(28)
        self._send(in_port, (*frames, mark))
        for number, arrivals in self._arrivals.items():
            arrived[number] += arrivals.until(mark)

    def _send(self, in_port: int, frames: Sequence[bytes]) -> None:
        with one_processor():
            for frame in frames:
                self._senders[in_port].send(frame)


class StockSide(Side):
    """Open vSwitch's userspace datapath. It outputs frames in another order than they came."""

    name = "Open vSwitch"

    def __init__(self, lab: Lab) -> None:
        host = lab.namespace("stock")
        switch = UserspaceSwitch(lab, host)
        super().__init__(lab, switch.tools, host, "datapath_type=netdev")
        processors = {max(os.sched_getaffinity(0))}
        for task in Path(f"/proc/{switch.processes[1].pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)

    def settle(self) -> None:
        """Only what new flows send is cached from now on."""
        self.tools.run("ovs-appctl", "revalidator/purge")

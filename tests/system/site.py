# SPDX-License-Identifier: Apache-2.0
"""Two bridges with silent guests, and the frames to send there."""

import re
from dataclasses import dataclass
from uuid import UUID

from tools.lab.capture import Capture, Frame
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, veth
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

from heliograph.switch.feedback import live

ETHERTYPE = b"\x88\xb6"  # the second one for experiments
MAC1, MAC2 = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
BROADCAST = b"\xff" * 6
PATCH = (
    "-- add-port br0 {0} -- set interface {0} type=patch options:peer={1}"
    " -- add-port br1 {1} -- set interface {1} type=patch options:peer={0}"
)


def frame(dst: bytes = MAC2, src: bytes = MAC1, tag: str = "", length: int = 60) -> bytes:
    """`tag` is TPID and TCI in hex; `length` is of the frame without it."""
    return dst + src + bytes.fromhex(tag) + ETHERTYPE + bytes(n % 251 for n in range(length - 14))


def data(frames: list[Frame]) -> list[bytes]:
    return [captured.data for captured in frames]


def mirror(name: str, bridge: str, columns: str) -> str:
    """Words that replace the mirrors of a bridge by one."""
    return (
        f"-- --id=@{name} create mirror name={name} {columns}"
        f" -- set bridge {bridge} mirrors=@{name}"
    )


def silence(namespace: Namespace) -> None:
    """No device of the namespace speaks IPv6, so none says anything unasked."""
    for devices in "default", "all":
        namespace.set_sysctl(f"ipv6/conf/{devices}/disable_ipv6", "1")


def read_live(switch: Heliograph, ovs: Tools, row: str, table: str) -> dict[str, int]:
    """The statistics of a Mirror or Port row as they are this moment, as `helio show` does."""
    counters = live(switch.rundir)
    assert counters is not None
    uuid = UUID(ovs.vsctl(f"get {table} {row} _uuid"))
    return (counters.mirrors if table == "mirror" else counters.ports)[uuid]


@dataclass
class Site:
    """Bridges br0 (tap1, tap2) and br1 (tap3, tap4), each guest silent in a namespace."""

    lab: Lab
    switch: Heliograph
    ovs: Tools
    guests: dict[str, Namespace]

    @classmethod
    def build(cls, lab: Lab, switch: Heliograph, ovs: Tools) -> "Site":
        """On a switch that runs and whose database is empty."""
        site = cls(lab, switch, ovs, {})
        silence(switch.host)
        ports = (("br0", "tap1"), ("br0", "tap2"), ("br1", "tap3"), ("br1", "tap4"))
        ovs.vsctl("add-br br0 -- add-br br1 " + " ".join(site._words(*port) for port in ports))
        for _, name in ports:
            site._settle(name)
        return site

    def add(self, bridge: str, name: str) -> None:
        """An internal port with a guest of its own."""
        self.ovs.vsctl(self._words(bridge, name))
        self._settle(name)

    @staticmethod
    def _words(bridge: str, name: str) -> str:
        return f"-- add-port {bridge} {name} -- set interface {name} type=internal"

    def _settle(self, name: str) -> None:
        self.guests[name] = self.lab.namespace(name)
        silence(self.guests[name])
        self.switch.move(name, self.guests[name])

    def uplink(self, bridge: str, name: str) -> None:
        """An existing device as a port; its guest has the other end, of the same name."""
        self.guests[name] = self.lab.namespace(name)
        silence(self.guests[name])
        veth((self.switch.host, name), (self.guests[name], name))
        self.ovs.vsctl(f"add-port {bridge} {name}")

    def wire(self, *pairs: tuple[str, str], columns: str = "", then: str = "") -> None:
        """Join br0 and br1 by veth pairs whose ports have these columns, in one transaction with
        `then`."""
        words = ""
        for near, far in pairs:
            self.switch.host.ip(f"link add {near} type veth peer name {far}")
            for name in (near, far):
                self.switch.host.ip(f"link set {name} up")
            words += f" -- add-port br0 {near} {columns} -- add-port br1 {far} {columns}"
        self.switch.host.going()
        self.ovs.vsctl(f"{words} {then}")

    def capture(self, port: str) -> Capture:
        return Capture(self.guests[port], port)

    def send(self, port: str, *frames: bytes) -> None:
        self.guests[port].send(port, frames)

    def said(self, row: str, table: str = "mirror") -> str:
        """A row's heliograph-error, "" if there is none."""
        return self.ovs.vsctl(f"--if-exists get {table} {row} external_ids:heliograph-error")

    def statistics(self, row: str, table: str = "mirror") -> dict[str, int]:
        printed = self.ovs.vsctl(f"get {table} {row} statistics")
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", printed)}

    def live(self, row: str, table: str = "mirror") -> dict[str, int]:
        """The statistics of a Mirror or Port row as they are this moment."""
        return read_live(self.switch, self.ovs, row, table)

    def settled(self, row: str, table: str = "mirror", **wanted: int) -> dict[str, int]:
        """The statistics once they have these values, or as they are after many refreshes."""

        def there() -> bool:
            now = self.statistics(row, table)
            return all(now.get(key, 0) == value for key, value in wanted.items())

        eventually(there)
        return self.statistics(row, table)

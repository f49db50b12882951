# SPDX-License-Identifier: Apache-2.0
"""A mirror that leaves the machine, with traffic running: what of it arrives where, and what is
counted."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.oracle.tunnel import Outer, decode
from tests.system.site import Site, mirror
from tests.system.underlay import FAR, Underlay, is_tunnelled
from tools.lab.capture import Capture, Frame
from tools.lab.flow import Flow
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually


class RemoteSpan:
    """br0 with the silent guests tap1 and tap2 beside an underlay whose other end is a bare
    collector; `mirror` copies what tap1 sends into a tunnel."""

    PORT = "out0"

    def __init__(self, lab: Lab, *, ephemeral: bool = False) -> None:
        switch = Heliograph(lab, ephemeral=ephemeral)
        switch.start()
        self.switch = switch
        self.ovs = Tools(switch.rundir)
        self.site = Site(lab, switch, self.ovs, {})
        self.under = Underlay.build(lab, switch.host)
        self.ovs.vsctl("add-br br0")
        for guest in "tap1", "tap2":
            self.site.add("br0", guest)

    def mirror(
        self,
        kind: str = "gre",
        options: str = "",
        *,
        remote: str = FAR.ipv4,
        columns: str = "select_src_port=@1",
    ) -> None:
        """(Re)make the tunnel port and mirror m0 into it."""
        self.ovs.vsctl(
            f"--if-exists del-port {self.PORT} -- add-port br0 {self.PORT}"
            f" -- set interface {self.PORT} type={kind} options:remote_ip={remote} {options}"
            f" -- --id=@1 get port tap1 -- --id=@out get port {self.PORT} "
            + mirror("m0", "br0", f"{columns} output_port=@out")
        )

    def clear(self) -> None:
        """Take both away."""
        self.ovs.vsctl(f"clear bridge br0 mirrors -- --if-exists del-port {self.PORT}")

    def interface(self, column: str) -> str:
        return self.ovs.vsctl(f"get interface {self.PORT} {column}")

    def said(self) -> tuple[str, str]:
        """What is said to be wrong, of the Mirror and of the Port."""
        return self.site.said("m0"), self.site.said(self.PORT, "port")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, which must come true."""
        assert eventually(condition, interval=0.02), self.said()

    def until_said(self, words: str) -> None:
        """Wait until both rows say so."""
        self.until(lambda: all(words in said for said in self.said()))

    def until_well(self) -> None:
        """Wait until nothing is said to be wrong."""
        self.until(lambda: self.said() == ("", ""))


class Traffic:
    """A flow of numbered frames from tap1 to tap2, and what arrives of it and of its copies."""

    def __init__(self, span: RemoteSpan, *elsewhere: Capture, rate: int = 1000) -> None:
        """`elsewhere` is captured, too, where copies may go."""
        self._span = span
        guests = span.site.guests
        self._stack = ExitStack()
        self.arrived = self._stack.enter_context(span.site.capture("tap2"))
        self.wires = [self._stack.enter_context(span.under.capture()), *elsewhere]
        target = guests["tap2"].mac("tap2")
        # Known, for no frame of the flow to be flooded.
        span.site.send("tap2", bytes(6) + target + b"\x88\xb5")
        self.flow = Flow((guests["tap1"], "tap1"), target, rate)
        self._before = span.site.live("m0")
        self.copies: list[list[int]] = []
        self.drops: dict[str, int] = {}
        self.lost = 0

    def __enter__(self) -> Self:
        self.flow.__enter__()
        return self

    def sends(self, more: int = 50) -> None:
        """Wait until so many more frames were sent."""
        wanted = self.flow.sent + more
        while self.flow.sent < wanted:
            time.sleep(0.002)

    def settle(self, unknown: int = 0) -> None:
        """End the flow, and see that production lost nothing and that each copy arrived, in
        `copies` by wire, or is counted in `drops` (D2), but for so many, which are `lost`."""
        self.flow.stop()
        assert self.flow.arrived(self.arrived) == list(range(self.flow.sent))
        self.copies = [
            self.flow.numbers([inner(frame) for frame in tunnelled(wire)]) for wire in self.wires
        ]
        now = self._span.site.live("m0")
        counted = {key: now[key] - self._before.get(key, 0) for key in now}
        assert counted["tx_packets"] == self.flow.sent
        self.drops = {key: n for key, n in counted.items() if key.startswith("drop_") and n}
        self.lost = self.flow.sent - sum(map(len, self.copies)) - sum(self.drops.values())
        assert 0 <= self.lost <= unknown, (self.lost, self.flow.sent, self.drops)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flow.__exit__(kind, error, traceback)
        self._stack.close()


def tunnelled(wire: Capture, count: int = 0) -> Sequence[Frame]:
    return wire.collect(count, keep=is_tunnelled)


def outers(wire: Capture, count: int = 0) -> list[Outer]:
    """The tunnelled frames that arrived, decoded; strictly, so all that is wrong is found."""
    return [decode(frame.data) for frame in tunnelled(wire, count)]


def inner(frame: Frame) -> Frame:
    data = decode(frame.data).inner
    return Frame(data, len(data))

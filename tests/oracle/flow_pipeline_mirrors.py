# SPDX-License-Identifier: Apache-2.0
"""Mirrors of a bridge with flow tables: the rules' own walk (model.py), which here goes the way
that the model of flow tables says."""

from dataclasses import replace

from tests.oracle.flow_pipeline import Cleared, Normal, Pipeline, Sent, Told
from tests.oracle.model import Sent as Departure
from tests.oracle.model import Verdict, Walk
from tests.oracle.model import _Place as Place
from tests.oracle.vlan import TPIDS, Packet, Tag, Tags

from heliograph.kernel.layouts import PortFlags, Reason
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry


class Flooding(Place):
    """Where NORMAL is at work."""

    def members(self, tags: Tags) -> list[PortEntry]:
        """Rule 63."""
        members = super().members(tags)
        return [port for port in members if not port.config & PortFlags.PORT_NO_FLOOD]


class FlowWalk(Walk):
    """Of one bridge; `pipeline` has its flows, and says where NORMAL is without doing it."""

    def __init__(self, bridge: BridgeEntry, pipeline: Pipeline, choice: int = 0) -> None:
        super().__init__([bridge], {})
        self.bridge, self.pipeline, self.choice = bridge, pipeline, choice
        self.ports = {port.ofport: port for port in bridge.ports}
        self.frame = b""

    def arrive(self, number: int, frame: bytes) -> Verdict:
        """A frame comes in by a port."""
        self.frame = frame
        by = next(port for port in self.bridge.ports if port.number == number)
        if by.config & PortFlags.PORT_NO_RECEIVE and by.ifindex and not self._reserved(number):
            self.verdict.drops.append((number, Reason.DROP_NO_RECEIVE))  # rule 11
            return self.verdict
        return self.receive(self.bridge.slot, number, frame)

    def _reserved(self, number: int) -> bool:
        return any(mirror.output_port == number for mirror in self.bridge.mirrors)

    def _normal(self, here: Place, packet: Packet) -> None:
        """Through the tables, where there would be NORMAL; why it went nowhere, if it did."""
        outcome = self.pipeline.run(self.frame, here.by.ofport, self.choice)
        before, refused = len(self.verdict.sent), Reason.DELIVERED
        told = False
        for event in outcome.events:
            match event:
                case Cleared() if self.bridge.mirror_changed:
                    self.done[self.bridge.slot].clear()  # rules 26 and 27, D9
                case Sent():
                    self._leave(here, event)
                case Normal():
                    refused = self._as_learned(event) or refused
                case Told():
                    told = True
        sent = any(sent.mirror is None for sent in self.verdict.sent[before:])
        if not sent and not told:
            nowhere = Reason.DROP_NO_FLOW if outcome.misses else Reason.DROP_FLOW
            self._drop(here, refused or nowhere)

    def _as_learned(self, event: Normal) -> Reason:
        """NORMAL; why it sends nothing."""
        packet = _packet(event.data, event.tags)
        if packet is None:
            return Reason.DROP_MALFORMED
        if len(packet.tags) == 1 and not packet.received:
            packet = replace(packet, tags=())
        drops, self.verdict.drops = self.verdict.drops, []
        super()._normal(Flooding(self.bridge, self.ports[event.in_port]), packet)
        refused = self.verdict.drops
        self.verdict.drops = drops
        return refused[-1][1] if refused else Reason.DELIVERED

    def _output(
        self,
        here: Place,
        port: PortEntry,
        tags: Tags,
        packet: Packet,
        *,
        mirror: MirrorEntry | None = None,
        snaplen: int = 0,
    ) -> bool:
        """Rule 43."""
        if port.config & PortFlags.PORT_NO_FORWARD and not here.apart(port):
            number = None if mirror is None else mirror.number
            self.verdict.sent.append(Departure(port.number, number, Reason.DROP_NO_FORWARD, b""))
            return False
        return super()._output(here, port, tags, packet, mirror=mirror, snaplen=snaplen)

    def _to_vlan(self, here: Place, mirror: MirrorEntry, tags: Tags, packet: Packet) -> None:
        """Rule 45: to ports that are no part of floods as well."""
        super()._to_vlan(Place(here.bridge, here.by, here.crossings), mirror, tags, packet)

    def _leave(self, here: Place, sent: Sent) -> None:
        """Rules 7, 8 and 76: as it is, by whatever way of outputting."""
        port, reason = self.ports[sent.port], Reason.DELIVERED
        if here.apart(port):
            if sent.flood:
                return
            reason = Reason.DROP_PROTECTED
        elif port.config & PortFlags.PORT_NO_FORWARD:
            reason = Reason.DROP_NO_FORWARD
        elif not port.ifindex:
            reason = Reason.DROP_NO_DEVICE
        self.verdict.sent.append(Departure(port.number, None, reason, sent.data))
        packet = _packet(sent.whole, sent.tags) or Packet(sent.whole[:12], (), sent.whole[12:])
        if reason == Reason.DELIVERED:
            self._mirror(here, port, packet, ingress=False)


def _packet(data: bytes, count: int) -> Packet | None:
    """With so many tags, though there be more; None: none, but one that nobody has looked at."""
    tags = []
    for at in range(12, 12 + 4 * count, 4):
        tpid, tci = (int.from_bytes(data[n : n + 2], "big") for n in (at, at + 2))
        tags.append(Tag(tci & 0xFFF, tci >> 13, tpid))
    rest = data[12 + 4 * count :]
    if not count and int.from_bytes(rest[:2], "big") in TPIDS:
        return None
    # A tag that says nothing goes, or is made anew.
    stays = any(tag.vid or tag.pcp for tag in tags) or count != 1
    return Packet(data[:12], tuple(tags), rest, (tuple(tags), data) if stays else None)


def reserved(bridge: BridgeEntry) -> list[int]:
    """The ofports that D7 keeps from floods."""
    outputs = {mirror.output_port for mirror in bridge.mirrors}
    return [port.ofport for port in bridge.ports if port.number in outputs]


def no_flood(bridge: BridgeEntry) -> list[int]:
    return [port.ofport for port in bridge.ports if port.config & PortFlags.PORT_NO_FLOOD]


def by_number(bridge: BridgeEntry) -> list[int]:
    """The ofports in the order of floods."""
    return [port.ofport for port in sorted(bridge.ports, key=lambda port: port.number)]

# SPDX-License-Identifier: Apache-2.0
"""Ports as OpenFlow describes them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from heliograph.kernel.counters import Counts
from heliograph.kernel.devices import Device, DeviceStats
from heliograph.openflow.messages import PortConfig, PortDesc, PortFeatures, PortState, PortStats
from heliograph.switch.feedback import Port, interface_statistics
from heliograph.switch.intent import Bridge
from heliograph.switch.plan import Plan
from heliograph.switch.wanted import stable_mac

_SPEEDS = {  # Mbit/s, full and half duplex
    10: (PortFeatures.FD_10MB, PortFeatures.HD_10MB),
    100: (PortFeatures.FD_100MB, PortFeatures.HD_100MB),
    1_000: (PortFeatures.FD_1GB, PortFeatures.HD_1GB),
    10_000: (PortFeatures.FD_10GB, PortFeatures.FD_10GB),
    40_000: (PortFeatures.FD_40GB, PortFeatures.FD_40GB),
    100_000: (PortFeatures.FD_100GB, PortFeatures.FD_100GB),
    1_000_000: (PortFeatures.FD_1TB, PortFeatures.FD_1TB),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A port of a bridge under its OpenFlow number; `interface` is the UUID of its row."""

    interface: UUID
    name: str
    ofport: int
    port: Port


def places(bridge: Bridge, planned: Plan, ports: Mapping[UUID, Port]) -> dict[int, Place]:
    """The working ports of a bridge by their OpenFlow numbers."""
    found = {}
    for port in bridge.ports:
        for interface in port.interfaces:
            number = planned.ofports.get(interface.uuid, -1)
            if number > 0 and interface.uuid in ports:
                known = ports[interface.uuid]
                found[number] = Place(interface.uuid, interface.name, number, known)
    return dict(sorted(found.items()))


def describe(place: Place, config: PortConfig) -> PortDesc:
    """`config` is what was set of the port; whether it is down, its device says."""
    port = place.port
    seen = port.user or port.device
    mac = seen.mac if seen else stable_mac(place.interface)
    speed = (port.link_speed or 0) // 1000
    down = seen is not None and not seen.admin_up
    return PortDesc(
        number=place.ofport,
        name=place.name,
        address=int(mac.replace(":", ""), 16),
        config=config | (PortConfig.DOWN if down else PortConfig.NONE),
        state=PortState.LIVE if _has_link(port, seen) else PortState.LINK_DOWN,
        current=_features(port),
        current_speed=speed,
        max_speed=speed,
    )


def _has_link(port: Port, seen: Device | None) -> bool:
    if port.tunnel:
        return port.egress.carrier if port.egress else port.receiving
    return seen is None or seen.carrier


def _features(port: Port) -> PortFeatures:
    if not port.link_speed:
        return PortFeatures.NONE
    full, half = _SPEEDS.get(port.link_speed // 1_000_000, (PortFeatures.OTHER,) * 2)
    return half if port.duplex == "half" else full


def statistics(
    place: Place, counts: Counts, devices: Mapping[int, DeviceStats], age: int
) -> PortStats:
    """`age` in nanoseconds."""
    device = devices.get(place.port.device.ifindex) if place.port.device else None
    found = interface_statistics(counts.ports[place.port.number], device)
    return PortStats(
        port=place.ofport,
        rx_packets=found["rx_packets"],
        tx_packets=found["tx_packets"],
        rx_bytes=found["rx_bytes"],
        tx_bytes=found["tx_bytes"],
        rx_dropped=found["rx_dropped"],
        tx_dropped=found["tx_dropped"],
        rx_errors=found["rx_errors"],
        tx_errors=found["tx_errors"],
        duration_ns=age,
    )

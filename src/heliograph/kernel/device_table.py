# SPDX-License-Identifier: Apache-2.0
"""What is known of the network devices: events in, facts and the names that changed out. No I/O.

The two ends of a veth pair tell about each other, yet the kernel announces only the end that
changed: nothing is said about our end when the user's end, down, is moved to another namespace,
nor about the first end of a pair just made. So the table says whose facts are contradicted, for
that device to be asked about by itself.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from heliograph.kernel.links import Device


class DeviceTable:
    """Devices by name and by ifindex, and the names whose facts changed since last asked."""

    def __init__(self) -> None:
        self._by_name: dict[str, Device] = {}
        self._by_index: dict[int, Device] = {}
        self._changed: set[str] = set()
        self.by_name: Mapping[str, Device] = MappingProxyType(self._by_name)
        self.by_index: Mapping[int, Device] = MappingProxyType(self._by_index)

    def take_changed(self) -> set[str]:
        """The names changed since the last call; of a renamed device both."""
        changed, self._changed = self._changed, set()
        return changed

    def replace(self, devices: Iterable[Device]) -> None:
        """These are all the devices there are."""
        found = {device.ifindex: device for device in devices}
        for ifindex in self._by_index.keys() - found.keys():
            self._forget(ifindex)
        for device in found.values():
            self.learn(device)

    def learn(self, device: Device) -> int | None:
        """Take in a device's present facts. Returns the ifindex of a partner to ask about."""
        old = self._by_index.get(device.ifindex)
        if old != device:
            if old and old.name != device.name:
                self._unname(old)
            self._by_index[device.ifindex] = device
            self._by_name[device.name] = device
            self._changed.add(device.name)
        partner = self._partner(device)
        return partner.ifindex if partner and not _claims(partner, device) else None

    def remove(self, device: Device) -> int | None:
        """A device left, with these facts. Returns the ifindex of a partner to ask about."""
        self._forget(device.ifindex)
        partner = self._partner(device)
        return partner.ifindex if partner and _claims(partner, device) else None

    def _partner(self, device: Device) -> Device | None:
        if device.kind != "veth" or device.peer_elsewhere:
            return None
        partner = self._by_index.get(device.peer)
        return partner if partner and partner.kind == "veth" else None

    def _forget(self, ifindex: int) -> None:
        old = self._by_index.pop(ifindex, None)
        if old:
            self._unname(old)

    def _unname(self, device: Device) -> None:
        # The name may belong to another device by now, which was heard of first.
        if self._by_name.get(device.name) is device:
            del self._by_name[device.name]
        self._changed.add(device.name)


def _claims(partner: Device, device: Device) -> bool:
    """Whether `partner` says that `device`, here, is its other end."""
    return partner.peer == device.ifindex and not partner.peer_elsewhere

# SPDX-License-Identifier: Apache-2.0
"""Copies as frames of the wire (departure D10): the segmenter, and ports without offloads.

The segmenter is a pair of devices of ours. A super-frame's copy that is to be cut goes in at its
near end, which has no offloads, so the kernel makes frames of the wire of it; the program at its
far end cuts and delivers each. What goes into a tunnel takes that way, too, to be encapsulated. It
exists while some mirror has a snaplen, or there is a tunnel.
"""

import logging
from collections.abc import Set
from dataclasses import replace
from uuid import NAMESPACE_URL, uuid5

from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.devices import Device, Devices, mute_ipv6
from heliograph.kernel.links import VETH_MAX_MTU
from heliograph.switch.restores import Restores

log = logging.getLogger(__name__)

SEGMENTER = "segmenter"  # the alias of its devices
_ON, _OFF = (True, True, True), (False, False, False)


class Segmenter:
    """The one of a switch."""

    def __init__(self, plane: DataPlane, devices: Devices, name: str) -> None:
        """`name` tells switches in one namespace apart."""
        token = uuid5(NAMESPACE_URL, f"heliograph:segmenter-2:{name}").hex
        self._near_name, self._far_name = f"hg{token[:12]}", f"hg{token[12:24]}"
        self._plane = plane
        self._devices = devices

    @property
    def ends(self) -> set[int]:
        """The devices, if they are there, by ifindex."""
        known = (self._devices.by_name.get(n) for n in (self._near_name, self._far_name))
        return {device.ifindex for device in known if device}

    async def prepare(self) -> int:
        """Have it there; returns the ifindex of the near end. Raises HeliographError, OSError."""
        near, far = await self._pair()
        self._plane.attach_segmenter(near.ifindex, far.ifindex)
        return near.ifindex

    async def _pair(self) -> tuple[Device, Device]:
        near, far = (self._devices.by_name.get(n) for n in (self._near_name, self._far_name))
        if near and far and near.admin_up and far.admin_up:
            return near, far
        if near is None or far is None:
            near, far = await self._devices.create_internal(
                self._near_name, self._far_name, SEGMENTER, None, VETH_MAX_MTU
            )
            log.info("segmenter made (%s)", near.name)
        mute_ipv6(near.name)
        await self._devices.set_offload(near.ifindex, tx=False, tso=False, gso=False)
        for end in near, far:
            await self._devices.set_up(end.ifindex, True)
        return near, far


class Offloads:
    """Ports whose copies must all be frames of the wire: their device has no offloads."""

    def __init__(self, devices: Devices, restores: Restores) -> None:
        self._devices = devices
        self._restores = restores
        self._off: dict[int, bool] = {}

    def keep(self, ifindexes: Set[int]) -> None:
        """Only these are ports: one that was put back is another's, also if it comes again."""
        for ifindex in self._off.keys() - ifindexes:
            del self._off[ifindex]

    async def apply(self, device: Device, *, wire_frames: bool) -> None:
        """Have a port's device so. Raises HeliographError if the driver refuses."""
        if self._off.get(device.ifindex) == wire_frames:
            return
        found = self._restores.get(device.ifindex)
        before = await self._devices.offloads(device.ifindex)
        if wire_frames:
            wanted = _OFF
            if found and found.offloads is None:
                self._restores.add(replace(found, offloads=before))
        elif found:
            wanted = found.offloads or before
        else:
            wanted = _ON
        if wanted != before:
            tx, tso, gso = wanted
            await self._devices.set_offload(device.ifindex, tx=tx, tso=tso, gso=gso)
        if found and found.offloads and not wire_frames:
            self._restores.add(replace(found, offloads=None))
        self._off[device.ifindex] = wire_frames

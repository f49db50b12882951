# SPDX-License-Identifier: Apache-2.0
"""The other ends of our ports' veth pairs: what their users see and set."""

import asyncio

from heliograph.kernel.devices import Device, Devices


class Users:
    """Facts about them, kept: of what changes in another namespace no event tells us."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._elsewhere: dict[int, tuple[Device, Device | None]] = {}

    async def end_of(self, port: Device) -> Device | None:
        """The other end of a port's veth device; None if it cannot be seen.

        One that is elsewhere is asked about anew when our end has changed.
        """
        if not port.peer_elsewhere:
            self._elsewhere.pop(port.ifindex, None)
            return self._devices.by_index.get(port.peer)
        known = self._elsewhere.get(port.ifindex)
        if known is None or known[0] != port:
            known = port, await self._devices.user_end(port.ifindex)
            self._elsewhere[port.ifindex] = known
        return known[1]

    async def refresh(self) -> bool:
        """Ask about all that are elsewhere; returns whether something has changed."""
        changed = False
        for ifindex, (port, user) in list(self._elsewhere.items()):
            if ifindex not in self._devices.by_index:
                del self._elsewhere[ifindex]
                continue
            now = await self._devices.user_end(ifindex)
            await asyncio.sleep(0)  # a thousand of them are no reason to hold up a pass
            if now != user and self._elsewhere.get(ifindex) == (port, user):
                self._elsewhere[ifindex] = port, now
                changed = True
        return changed

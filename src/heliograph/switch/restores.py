# SPDX-License-Identifier: Apache-2.0
"""What to undo, on disk before it is done: it survives a crash of the switch.

Existing devices as they were found, and the names of the pairs that are just being made.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from heliograph.errors import HeliographError
from heliograph.kernel.devices import Devices, Restore


@dataclass(frozen=True, slots=True)
class Found:
    """How an existing device was. `mtu` is what it had before mtu_request made it `mtu_set`;
    both are 0 when it did not. `offloads` (tx, tso, gso) are what it had before they were switched
    off, None when they were not."""

    restore: Restore
    mtu: int = 0
    mtu_set: int = 0
    offloads: tuple[bool, bool, bool] | None = None


class Restores:
    """The file of what to undo. Every change is written before the method returns."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier process left. Raises HeliographError if that is not readable."""
        self._path = path
        self._found: dict[int, Found] = {}
        self._making: tuple[str, ...] = ()
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text())
            for entry in content["found"]:
                found = Found(Restore(**entry.pop("restore")), **entry)
                self._found[found.restore.ifindex] = found
            self._making = tuple(content["making"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise HeliographError(
                f"{path}, which says how devices were before they became ports, cannot be "
                f"understood ({error}): remove it, and look after their promiscuous mode yourself"
            ) from error

    def get(self, ifindex: int) -> Found | None:
        """How a device was found, if it is one that was changed."""
        return self._found.get(ifindex)

    def __iter__(self) -> Iterator[Found]:
        return iter(list(self._found.values()))

    def add(self, found: Found) -> None:
        """Remember how a device was found; call before changing it."""
        self._found[found.restore.ifindex] = found
        self._write()

    def drop(self, ifindex: int) -> None:
        """The device is as it was, or gone."""
        if self._found.pop(ifindex, None):
            self._write()

    @property
    def making(self) -> tuple[str, ...]:
        """Our ends of the pairs that were being made and may not be linked yet."""
        return self._making

    @making.setter
    def making(self, names: Iterable[str]) -> None:
        before, self._making = self._making, tuple(names)
        if self._making != before:
            self._write()

    def _write(self) -> None:
        content = {
            "found": [asdict(found) for found in self._found.values()],
            "making": self._making,
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(content))
        fresh.rename(self._path)


async def put_back(devices: Devices, found: Found) -> None:
    """Make a device what it was before it became a port; what the user has changed since stays
    his. One that is gone is left alone. Raises HeliographError."""
    device = devices.by_index.get(found.restore.ifindex)
    same = device and found.restore.mac == device.mac
    if device and same and found.mtu and device.mtu == found.mtu_set:
        await devices.set_mtu(device.ifindex, found.mtu)
    if device and same and found.offloads:
        tx, tso, gso = found.offloads
        await devices.set_offload(device.ifindex, tx=tx, tso=tso, gso=gso)
    await devices.release(found.restore)

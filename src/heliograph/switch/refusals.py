# SPDX-License-Identifier: Apache-2.0
"""What tunnel ports have been dropping lately for a reason that somebody can mend."""

from uuid import UUID

from heliograph.kernel.counters import Counts
from heliograph.kernel.layouts import Reason
from heliograph.switch.encapsulation import Network
from heliograph.switch.intent import Intent
from heliograph.switch.plan import Plan

_TELLING = (
    Reason.DROP_MTU,
    Reason.DROP_KEY,
    Reason.DROP_REMOTE,
    Reason.DROP_VERSION,
    Reason.DROP_LOOP,
)


class Refusals:
    """Follows the counters from one reading of all statistics to the next."""

    def __init__(self) -> None:
        self._counted: dict[int, dict[Reason, int]] = {}
        self._recent: dict[int, frozenset[Reason]] = {}
        self._looped: set[int] = set()

    def take_in(self, plan: Plan, counts: Counts) -> bool:
        """Returns whether something else is dropped now than before."""
        before, self._counted = self._counted, {}
        recent: dict[int, frozenset[Reason]] = {}
        looped, self._looped = self._looped, set()
        for number in plan.tunnels.values():
            if number not in counts.ports:
                continue
            drops = self._counted[number] = counts.ports[number].drops
            known = before.get(number, drops)
            more = {r for r in _TELLING if drops.get(r, 0) > known.get(r, 0)}
            if Reason.DROP_LOOP in more:
                self._looped.add(number)
                if number not in looped:  # the switch may just have forgotten where the host is
                    more.remove(Reason.DROP_LOOP)
            if more:
                recent[number] = frozenset(more)
        changed = recent != self._recent
        self._recent = recent
        return changed

    def complain(self, intent: Intent, plan: Plan, network: Network) -> None:
        """Say it on the Port rows."""
        for bridge in intent.bridges:
            for port in bridge.ports:
                for interface in port.interfaces:
                    number = plan.tunnels.get(interface.uuid, -1)
                    for reason in sorted(self._recent.get(number, ())):
                        plan.complain(port.uuid, _words(network, interface.uuid, reason))


def _words(network: Network, interface: UUID, reason: Reason) -> str:
    tunnel, path = network.tunnels[interface], network.paths.get(interface)
    if reason == Reason.DROP_MTU:
        return (
            f"drops frames that are too long for its way, whose MTU is {path.mtu if path else 0}: "
            "raise that, or lower the MTU of the guests (the outer headers come on top of it)"
        )
    if reason == Reason.DROP_KEY:
        return (
            f"drops packets from {tunnel.remote} that have another key: compare options:key here "
            "and there"
        )
    if reason == Reason.DROP_REMOTE:
        return (
            f"drops packets with its key that do not come from {tunnel.remote}: compare "
            "options:remote_ip with the address that they come from"
        )
    if reason == Reason.DROP_LOOP:
        return (
            f"its packets come back to it on their way to {tunnel.remote}: lead that address by a "
            "device that is no port of a bridge which sends frames into the tunnel"
        )
    return (
        f"drops packets from {tunnel.remote} of another version: compare options:erspan_ver here "
        "and there"
    )

# SPDX-License-Identifier: Apache-2.0
"""The flows of one table, arranged as the data plane's classifier is: by mask, then by value.

Strict look-ups are two of a dictionary. Loose ones and overlaps look at each mask once (at most
256 are there), and at the flows of those masks only where one could count; where the masks are the
same, at none but the equal ones. Flows of equal match are one list, the highest priority first:
only that one can be hit, so only that one is in the data plane.
"""

from collections.abc import Iterator

from heliograph.flows.flow import Flow
from heliograph.openflow.match import Mask, Match, Values


class Table:
    """Of equal matches, `priority` tells flows apart."""

    __slots__ = ("_masks", "flows")

    def __init__(self) -> None:
        self._masks: dict[Mask, dict[Values, list[Flow]]] = {}
        self.flows = 0

    @property
    def masks(self) -> int:
        return len(self._masks)

    def has_mask(self, match: Match) -> bool:
        return match.split()[0] in self._masks

    def winner(self, match: Match) -> Flow | None:
        """The one of the flows with this match that packets hit."""
        mask, values = match.split()
        equal = self._masks.get(mask, {}).get(values)
        return equal[0] if equal else None

    def find(self, match: Match, priority: int) -> Flow | None:
        mask, values = match.split()
        for flow in self._masks.get(mask, {}).get(values, ()):
            if flow.priority == priority:
                return flow
        return None

    def covered(self, match: Match) -> Iterator[Flow]:
        """The flows, of any priority, all of whose packets `match` matches: "loose" matching."""
        wanted, values = match.split()
        for mask, rules in self._masks.items():
            if mask == wanted:
                yield from rules.get(values, ())
                continue
            places = {name: (n, bits) for n, (name, bits) in enumerate(mask)}
            if any(bits & ~places.get(name, (0, 0))[1] for name, bits in wanted):
                continue
            looks = [
                (places[name][0], value, bits)
                for (name, bits), value in zip(wanted, values, strict=True)
            ]
            for key, equal in rules.items():
                if all(key[n] & bits == value for n, value, bits in looks):
                    yield from equal

    def overlapping(self, match: Match, priority: int) -> Flow | None:
        """A flow of this priority that could match a packet that `match` does."""
        wanted, values = match.split()
        asked = {name: (v, b) for (name, b), v in zip(wanted, values, strict=True)}
        for mask, rules in self._masks.items():
            if mask == wanted:
                found = [rules.get(values, [])]
            else:
                looks = [
                    (n, asked[name][0], bits & asked[name][1])
                    for n, (name, bits) in enumerate(mask)
                    if name in asked
                ]
                found = [
                    equal
                    for key, equal in rules.items()
                    if not any((key[n] ^ value) & bits for n, value, bits in looks)
                ]
            for equal in found:
                for flow in equal:
                    if flow.priority == priority:
                        return flow
        return None

    def put(self, flow: Flow) -> None:
        """Add a flow, in the place of an equal one if there is one."""
        mask, values = flow.match.split()
        equal = self._masks.setdefault(mask, {}).setdefault(values, [])
        for n, other in enumerate(equal):
            if other.priority <= flow.priority:
                if other.priority == flow.priority:
                    equal[n] = flow
                    return
                equal.insert(n, flow)
                break
        else:
            equal.append(flow)
        self.flows += 1

    def remove(self, flow: Flow) -> None:
        mask, values = flow.match.split()
        rules = self._masks[mask]
        equal = rules[values]
        equal.remove(flow)
        self.flows -= 1
        if not equal:
            del rules[values]
            if not rules:
                del self._masks[mask]

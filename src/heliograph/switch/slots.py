# SPDX-License-Identifier: Apache-2.0
"""Whose place in the data plane's tables is which, and whose number. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Slots:
    """Whose slot is which, by row UUID; a mirror's is its bridge's slot * 32 + its number.

    `ofports`, by Bridge row: whose each OpenFlow port number is, or was (ofports.Numbers).
    """

    bridges: dict[UUID, int] = field(default_factory=dict)
    ports: dict[UUID, int] = field(default_factory=dict)
    mirrors: dict[UUID, int] = field(default_factory=dict)
    ofports: dict[UUID, dict[int, UUID]] = field(default_factory=dict)


def assign(rows: Iterable[UUID], old: Mapping[UUID, int], free: Collection[int]) -> dict[UUID, int]:
    """Slots for rows: theirs as before, else the lowest that was free, else one given up.

    A slot given up only now is the last choice: frames on their way still count into it. Rows
    for which there is none are left out.
    """
    wanted = list(rows)
    kept = {row: old[row] for row in wanted if row in old}
    taken, leaving = set(kept.values()), set(old.values()) - set(kept.values())
    fresh = sorted(slot for slot in free if slot not in taken)
    fresh.sort(key=lambda slot: slot in leaving)
    spare = iter(fresh)
    for row in wanted:
        if row not in kept:
            slot = next(spare, None)
            if slot is not None:
                kept[row] = slot
    return kept

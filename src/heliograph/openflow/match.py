# SPDX-License-Identifier: Apache-2.0
"""What a flow matches, in one form whichever version said it.

Several encodings of one thing are brought to one field, so that equal matches are equal:
`dl_vlan`, `vlan_vid` and `vlan_pcp` become bits of `vlan_tci` (with the CFI bit, 0x1000, for "has a
tag"); `nw_tos` becomes `ip_dscp` (six bits, not shifted); `xreg` and `xxreg` become their `reg`s;
that a packet is Ethernet is left out, as all are; ports are 16-bit numbers as in OpenFlow 1.0
(actions.Port). Fields of protocols stay apart (`tcp_src`, `udp_src`, `icmp_type`): that one of them
is there says what the prerequisites say too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Masked = tuple[int, int]  # value, mask; never a bit in the value that is not in the mask
Mask = tuple[tuple[str, int], ...]
Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Sorted by name; a field with no bit in its mask is not there."""

    fields: tuple[tuple[str, int, int], ...] = ()
    _split: tuple[Mask, Values] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, fields: Mapping[str, Masked] | Iterable[tuple[str, Masked]]) -> "Match":
        """A match of unsorted fields; values lose the bits that are not in their masks."""
        items = dict(fields).items()
        return cls(tuple(sorted((name, v & m, m) for name, (v, m) in items if m)))

    def get(self, name: str) -> Masked | None:
        for known, value, mask in self.fields:
            if known == name:
                return value, mask
        return None

    def split(self) -> tuple[Mask, Values]:
        """Which bits of which fields, and what they are, side by side; worked out once."""
        if self._split is None:
            mask = tuple([(name, mask) for name, _value, mask in self.fields])
            values = tuple([value for _name, value, _mask in self.fields])
            object.__setattr__(self, "_split", (mask, values))
            return mask, values
        return self._split

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


ANYTHING = Match()

# SPDX-License-Identifier: Apache-2.0
"""What a flow matches, as masked words of the data plane's key.

Flows that look at the same bits of the same fields have one shape, which is worked out once.
"""

from functools import lru_cache
from typing import NamedTuple

from heliograph.flows.compile_fields import PIECES
from heliograph.kernel.layouts import FlowLimits
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.match import Match


class Part(NamedTuple):
    """Bits of a field's value, and where they go: into which masked word, how far up."""

    field: int
    down: int
    ones: int
    word: int
    up: int


class Shape(NamedTuple):
    """`words` and `masks` side by side; `parts` say how values become masked words."""

    words: tuple[int, ...]
    masks: tuple[int, ...]
    parts: tuple[Part, ...]


class Compiled(NamedTuple):
    shape: Shape
    values: tuple[int, ...]


def compile_match(match: Match) -> Compiled:
    """Raises OpenFlowError for what the data plane does not find.

    A match that looks at more words than a mask has is OFPBMC_BAD_WILDCARDS, "unsupported
    combination of fields masked or omitted"; Open vSwitch has no such limit. Nor does it find an
    ARP opcode above 255, which it answers with OFPBMC_BAD_VALUE, as here.
    """
    fields = match.fields
    shape = _shape(tuple([(name, mask) for name, _, mask in fields]))
    values = [0] * len(shape.words)
    for field, down, ones, word, up in shape.parts:
        values[word] |= (fields[field][1] >> down & ones) << up
    for name, value, _ in fields:
        if name == "arp_op" and value > 0xFF:
            raise OpenFlowError(Code.OFPBMC_BAD_VALUE, f"arp_op={value}; it has 8 bits")
    return Compiled(shape, tuple(values))


@lru_cache(maxsize=4096)
def _shape(mask: tuple[tuple[str, int], ...]) -> Shape:
    masks: dict[int, int] = {}
    for name, bits in mask:
        if name not in PIECES:
            raise OpenFlowError(Code.OFPBMC_BAD_FIELD, f"the switch does not match {name}")
        for piece in PIECES[name]:
            part = bits >> piece.offset & (1 << piece.bits) - 1
            if part:
                masks[piece.word] = masks.get(piece.word, 0) | part << piece.shift
    words = tuple(sorted(masks))
    if len(words) > FlowLimits.MAX_MASK_WORDS:
        raise OpenFlowError(
            Code.OFPBMC_BAD_WILDCARDS,
            f"the match needs {len(words)} words of the key, {FlowLimits.MAX_MASK_WORDS} at most; "
            "match fewer fields at once",
        )
    parts = [
        Part(n, piece.offset, (1 << piece.bits) - 1, words.index(piece.word), piece.shift)
        for n, (name, bits) in enumerate(mask)
        for piece in PIECES[name]
        if bits >> piece.offset & (1 << piece.bits) - 1
    ]
    return Shape(words, tuple(masks[word] for word in words), tuple(parts))

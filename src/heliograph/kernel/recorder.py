# SPDX-License-Identifier: Apache-2.0
"""The recording entry point: what the switch would do with a frame, decision by decision.

Runs the attached program's own functions on the live maps, without sending, counting or learning
(design, "Recording"). It does not prove the egress program: only real frames do.
"""

import secrets
import struct
from dataclasses import dataclass

from heliograph.errors import HeliographError
from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import EventKind, Limits, OpCode, Reason

NO_MIRROR = 0xFFFF
_CB = 48  # offset of cb[] in struct __sk_buff (linux/bpf.h)
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Event:
    """One decision. `port` and `vlan` as far as `kind` has them; see bpf/types.h.

    EVENT_OUTPUT: `image` is the start (256 bytes) of the frame as it would leave, of `length`
    bytes in all; `reason` is other than DELIVERED if it would not. `mirror` is the number of the
    mirror whose copy it is, None for the frame itself. EVENT_MIRROR: `mirror` takes the frame.
    EVENT_FLOW: the cell of the `rule` that the frame matched in `table`, None if it matched none.
    EVENT_ACTION: the number of the `op` that is to be done, and what it is.
    """

    kind: EventKind
    reason: Reason
    port: int
    mirror: int | None
    vlan: int
    length: int
    image: bytes
    table: int | None = None
    rule: int | None = None
    op: int | None = None
    action: OpCode | None = None


def _event(data: bytes) -> Event:
    raw = layouts.Event.unpack(data)
    kind, reason = EventKind(raw.kind), raw.reason
    if kind == EventKind.EVENT_FLOW:
        return Event(kind, Reason(0), 0, None, 0, 0, b"", table=raw.port, rule=raw.length or None)
    if kind == EventKind.EVENT_ACTION:
        action = OpCode(raw.port)
        return Event(kind, Reason(0), 0, None, 0, 0, b"", op=raw.length, action=action)
    mirror: int | None = None if raw.mirror == NO_MIRROR else raw.mirror
    image, length = b"", raw.length
    if kind == EventKind.EVENT_MIRROR:
        mirror, reason = reason, 0
    if kind == EventKind.EVENT_OUTPUT:
        image = raw.image[: raw.image_length]
        if raw.tag_present:
            # The kernel keeps a tag it has pushed beside the data; on the wire it is in it.
            tag = struct.pack(">HH", raw.tag_tpid, raw.tag_tci)
            image, length = image[:12] + tag + image[12:], length + 4
    else:
        length = 0
    return Event(kind, Reason(reason), raw.port, mirror, raw.vlan, length, image)


def context(*words: int) -> bytes:
    """A struct __sk_buff with these in cb[], for a test run."""
    made = bytearray(_CB + 20)
    struct.pack_into(f"={len(words)}I", made, _CB, *words)
    return bytes(made)


def record(
    program_fd: int, records_fd: int, frame: bytes, *, bridge: int, port: int
) -> list[Event]:
    """What bridge slot `bridge` would do with `frame` coming in by port number `port`.

    Raises HeliographError when the run cannot be caught on one CPU, or made more decisions than
    a record holds.
    """
    size = (layouts.RECORD_SIZE + 7) // 8 * 8
    run = secrets.randbits(32)
    words = context(bridge, port, run)
    for _ in range(_TRIES):
        # A record is its CPU's: look through all, in case the run was moved.
        bpf.test_run(program_fd, frame, words)
        data = bpf.lookup(records_fd, bytes(4), size * bpf.cpu_count())
        assert data is not None
        for start in range(0, len(data), size):
            number, count = struct.unpack_from("=II", data, start)
            if number != run:
                continue
            if count > Limits.MAX_EVENTS:
                raise HeliographError(f"the frame made {count} decisions, too many to record")
            first = start + layouts.RECORD_EVENTS
            width = layouts.EVENT.size
            return [_event(data[first + n * width : first + (n + 1) * width]) for n in range(count)]
    raise HeliographError(f"another recording ran on the same CPUs {_TRIES} times; try again")

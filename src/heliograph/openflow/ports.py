# SPDX-License-Identifier: Apache-2.0
"""Numbers of ports: 16 bits in 1.0, 32 later, with the reserved ones at the upper end of each."""

from heliograph.openflow.actions import Port
from heliograph.openflow.errors import Code, OpenFlowError

_UP = 0xFFFF_0000


def from_wide(number: int, error: Code = Code.OFPBRC_BAD_PORT) -> int:
    if number < Port.MAX:
        return number
    if number >= _UP | Port.MAX:
        return number & 0xFFFF
    raise OpenFlowError(error, f"port {number:#x} is above {Port.MAX - 1:#x} and not reserved")


def to_wide(number: int) -> int:
    return number | _UP if number >= Port.MAX else number

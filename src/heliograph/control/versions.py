# SPDX-License-Identifier: Apache-2.0
"""Bridge.protocols: which versions of OpenFlow a bridge speaks."""

from collections.abc import Iterable

from heliograph.openflow.messages import Version

_NAMES = {
    "OpenFlow10": Version.V10,
    "OpenFlow13": Version.V13,
    "OpenFlow14": Version.V14,
    "OpenFlow15": Version.V15,
}


def spoken(protocols: Iterable[str]) -> frozenset[int]:
    """None named: all."""
    named = set(protocols)
    return frozenset(n for name, n in _NAMES.items() if not named or name in named)


def unspoken(protocols: Iterable[str]) -> list[str]:
    return sorted(set(protocols) - set(_NAMES))

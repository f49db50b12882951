# SPDX-License-Identifier: Apache-2.0
"""Patch ports come in pairs that name each other (rule 125)."""

from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.switch import patches


def patch(rows: Rows, name: str, peer: str | None) -> UUID:
    """A Port row with an Interface of type patch; returns the Interface row."""
    options = {} if peer is None else {"peer": peer}
    interface = rows.add("Interface", name=name, type="patch", options=options)
    port = rows.add("Port", name=name, interfaces=(interface,))
    rows.bridge(f"br-{name}", (port,))
    return interface


def test_a_pair(rows: Rows) -> None:
    a, b = patch(rows, "a", "b"), patch(rows, "b", "a")
    peers, errors = patches.pair(rows.intent)
    assert errors == {}
    assert peers[a].interface == b and peers[b].interface == a
    assert {bridge.uuid for bridge in rows.intent.bridges} == {end.bridge for end in peers.values()}


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (None, "has no peer: set interface a options:peer=NAME"),
        ("a", "its own peer"),
        ("nobody", "No usable peer 'nobody' exists: add a port"),
        ("b", "its peer is 'c', set interface b options:peer=a"),
    ],
)
def test_no_usable_peer(rows: Rows, peer: str | None, words: str) -> None:
    a = patch(rows, "a", peer)
    patch(rows, "b", "c")
    peers, errors = patches.pair(rows.intent)
    assert a not in peers and words in errors[a]

# SPDX-License-Identifier: Apache-2.0
"""Bridge.protocols."""

from heliograph.control.versions import spoken, unspoken


def test_versions_by_their_names() -> None:
    assert spoken(()) == {1, 4, 5, 6}
    assert spoken({"OpenFlow13"}) == {4}
    assert spoken({"OpenFlow11", "OpenFlow15"}) == {6}
    assert spoken({"OpenFlow12"}) == frozenset()
    assert unspoken({"OpenFlow15", "OpenFlow12", "OpenFlow11"}) == ["OpenFlow11", "OpenFlow12"]

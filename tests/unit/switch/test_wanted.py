# SPDX-License-Identifier: Apache-2.0
"""Which devices rows need."""

from tests.unit.switch.conftest import Rows

from heliograph.switch import wanted


def test_patch_ports_are_no_devices_and_may_have_long_names(rows: Rows) -> None:
    names = ("patch-provnet-0001-to-br-int", "patch-br-int-to-provnet-0001")
    for name, peer in zip(names, reversed(names), strict=True):
        interface = rows.add("Interface", name=name, type="patch", options={"peer": peer})
        rows.bridge(f"br-{name}", (rows.add("Port", name=name, interfaces=(interface,)),))
    assert wanted.devices(rows.intent) == wanted.DevicePlan({}, {}, {})

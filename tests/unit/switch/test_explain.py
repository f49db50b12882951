# SPDX-License-Identifier: Apache-2.0
"""What is wrong reaches every row that it concerns."""

from typing import Any, cast

from tests.unit.switch.conftest import Rows

from heliograph.switch import explain, plan


def test_departure_1_an_output_that_cannot_be_attached_is_told_on_its_mirrors(rows: Rows) -> None:
    """And on its Interface; a mirror with another output is left alone."""
    a, b = rows.port("a"), rows.port("b")
    mirrors = [
        rows.add("Mirror", name=f"to-{port}", select_all=True, output_port=port) for port in (a, b)
    ]
    bridge = rows.bridge("br0", (a, b), mirrors=tuple(mirrors))
    planned = plan.Plan(bridges={bridge: cast("Any", None)})
    interface = rows.interface_of(a)
    explain.faults({interface: "cannot be attached"}, rows.intent, planned)
    assert planned.errors == {interface: "cannot be attached"}
    assert planned.problems == {mirrors[0]: "its output does not work: cannot be attached"}

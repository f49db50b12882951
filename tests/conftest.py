# SPDX-License-Identifier: Apache-2.0
"""The layers of the tests: run in this order, each with a budget of time that is printed.

It is the time from a layer's first test to the end of its last, in however many processes.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine takes its time for a single case, and to make one.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

LAYERS = {"unit": 30.0, "packet": 60.0, "system": 300.0}  # seconds
_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE.parent))  # tools.lab, also for a pytest that is called by its path
_span: dict[str, tuple[float, float]] = {}  # first beginning and last end
_counted: dict[str, int] = {}


def _layer(path: Path) -> str:
    return path.relative_to(_HERE).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = list(LAYERS)
    items.sort(key=lambda item: order.index(_layer(item.path)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    layer = Path(report.nodeid).parts[1]
    first, last = _span.get(layer, (report.start, report.stop))
    _span[layer] = min(first, report.start), max(last, report.stop)
    _counted[layer] = _counted.get(layer, 0) + (report.when == "call")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("layers")
    for layer, budget in LAYERS.items():
        if layer in _span:
            first, last = _span[layer]
            spent = last - first
            verdict = "OVER its budget of" if spent > budget else "budget"
            terminalreporter.line(
                f"{layer:7} {_counted[layer]:4} tests {spent:6.1f} s   {verdict} {budget:.0f} s"
            )

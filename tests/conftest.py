# SPDX-License-Identifier: Apache-2.0
"""The layers of the tests: run in this order, each with a budget of time that is printed."""

import sys
from pathlib import Path

import pytest

LAYERS = {"unit": 30.0, "packet": 60.0, "system": 300.0}  # seconds
_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE.parent))  # tools.lab, also for a pytest that is called by its path
_spent: dict[str, float] = {}
_counted: dict[str, int] = {}


def _layer(path: Path) -> str:
    return path.relative_to(_HERE).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = list(LAYERS)
    items.sort(key=lambda item: order.index(_layer(item.path)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    layer = Path(report.nodeid).parts[1]
    _spent[layer] = _spent.get(layer, 0.0) + report.duration
    _counted[layer] = _counted.get(layer, 0) + (report.when == "call")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("layers")
    for layer, budget in LAYERS.items():
        if layer in _spent:
            spent = _spent[layer]
            verdict = "OVER its budget of" if spent > budget else "budget"
            terminalreporter.line(
                f"{layer:7} {_counted[layer]:4} tests {spent:6.1f} s   {verdict} {budget:.0f} s"
            )

# SPDX-License-Identifier: Apache-2.0
"""What was measured, as JSON and as tables."""

import json
import math
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

Samples = list[float]


def _machine() -> dict[str, str | int]:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in cpuinfo if line.startswith("model name")), "")
    return {"kernel": platform.release(), "cpus": os.cpu_count() or 0, "cpu": model}


@dataclass
class Report:
    """All samples of a run by what was measured and on whom; medians are worked out at the end."""

    measured: dict[str, dict[str, Samples]] = field(default_factory=dict)
    aims: dict[tuple[str, str], str] = field(default_factory=dict)

    def aim(self, what: str, contender: str, words: str) -> None:
        """What is to be reached ("<= 80"), to be shown beside what was."""
        self.aims[what, contender] = words

    def add(self, what: str, contender: str, *values: float) -> None:
        self.measured.setdefault(what, {}).setdefault(contender, []).extend(values)

    def median(self, what: str, contender: str) -> float:
        return statistics.median(self.measured[what][contender])

    def times(self, what: str, contender: str, base: str) -> Samples:
        """How many times the figure of `base` a contender's is, turn by turn."""
        pairs = zip(self.measured[what][contender], self.measured[what][base], strict=True)
        return [ours / theirs for ours, theirs in pairs]

    def write(self, path: Path) -> None:
        """One JSON object: machine, time, and for each figure its median and all samples.

        A delay that did not end within its bound is null.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {
            what: {
                contender: {
                    "median": _finite(statistics.median(samples)),
                    "samples": [_finite(sample) for sample in samples],
                    **self._aim(what, contender),
                }
                for contender, samples in by_contender.items()
            }
            for what, by_contender in self.measured.items()
        }
        document = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "figures": figures,
        }
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")

    def _aim(self, what: str, contender: str) -> dict[str, str]:
        aim = self.aims.get((what, contender))
        return {"aim": aim} if aim else {}

    def tables(self) -> str:
        """A table for every figure: median, smallest and largest sample of each contender, and
        what is to be reached if anything is."""
        machine = _machine()
        parts = [f"{machine['cpus']} x {machine['cpu']}, Linux {machine['kernel']}"]
        for what, by_contender in self.measured.items():
            head = [what, "median", "least", "most"]
            rows = [
                [name, *(_shown(f(samples)) for f in (statistics.median, min, max))]
                for name, samples in by_contender.items()
            ]
            if any((what, name) in self.aims for name in by_contender):
                head.append("to reach")
                for row in rows:
                    row.append(self.aims.get((what, row[0]), ""))
            parts.append("\n".join(_aligned([head, *rows])))
        return "\n\n".join(parts)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    width = max(len(row[0]) for row in rows)
    for row in rows:
        yield row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:])

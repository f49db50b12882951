# SPDX-License-Identifier: Apache-2.0
"""The file in which flows and groups outlive the switch, beside the data plane that runs on.

It is worth nothing without that data plane, which does not outlive the machine, so nothing waits
for the disk: what the kernel has been given is there after a crash of the switch. A crash within
an append leaves a torn last line, or a change that is not all there, which is cut off: that change
was not answered yet.
"""

from pathlib import Path

from heliograph.flows.change import Change
from heliograph.flows.records import (
    NOTHING,
    Besides,
    Kept,
    Reading,
    line_of_besides,
    lines_of_all,
    lines_of_change,
)
from heliograph.flows.tables import Tables

_SLACK = 10_000  # flows that it may tell of in vain


class JournalError(Exception):
    """The file is damaged, and not only at its end."""


class Journal:
    def __init__(self, path: Path, besides: Besides = NOTHING) -> None:
        self._path = path
        self._besides = besides
        self._entries = 0  # flows that it tells of
        self._file = path.open("ab")

    def load(self) -> Kept:
        """What it holds; a torn end is cut off, so that the next change is whole."""
        reading = Reading()
        at = whole = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                at += len(line)
                try:
                    if line.endswith(b"\n") and reading.feed(line):
                        whole = at
                except ValueError as error:
                    raise JournalError(
                        f"{self._path}, line {number}: {error}; "
                        "remove the file to begin without flows"
                    ) from error
        if whole < at:
            self._file.truncate(whole)
        kept = reading.kept()
        self._entries, self._besides = reading.entries, kept.besides
        return kept

    def append(self, change: Change, tables: Tables) -> None:
        """After a change is in force, and before it is answered; now and then, all anew."""
        if not change.steps:
            return
        self._file.writelines(lines_of_change(change, tables.next_id))
        self._file.flush()
        self._entries += len(change.steps)
        if self._entries > 2 * len(tables.flows) + _SLACK:
            self.compact(tables)

    def note(self, besides: Besides) -> None:
        """In the place of what was noted before."""
        self._besides = besides
        self._file.write(line_of_besides(besides))
        self._file.flush()

    def compact(self, tables: Tables) -> None:
        """Write only what is there, into another file that then takes the place."""
        fresh = self._path.with_name(self._path.name + ".new")
        flows, groups = tables.flows.values(), tables.groups.values()
        with fresh.open("wb") as file:
            file.writelines(lines_of_all(flows, groups, tables.next_id, self._besides))
        fresh.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab")
        self._entries = len(tables.flows)

    def close(self) -> None:
        self._file.close()

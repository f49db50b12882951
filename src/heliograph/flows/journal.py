# SPDX-License-Identifier: Apache-2.0
"""The file in which flows and groups outlive the switch, beside the data plane that runs on.

It is worth nothing without that data plane, which does not outlive the machine, so nothing waits
for the disk: what the kernel has been given is there after a crash of the switch. A crash within
an append leaves a torn last line, which is cut off: that change was not answered yet.
"""

from pathlib import Path

from heliograph.flows.change import Change
from heliograph.flows.records import Kept, Reading, line_of_change, lines_of_all
from heliograph.flows.tables import Tables

_SLACK = 10_000  # lines that need not be worth their while


class JournalError(Exception):
    """The file is damaged, and not only at its end."""


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._file = path.open("ab")

    def load(self) -> Kept:
        """What it holds; a torn end is cut off, so that the next line is whole."""
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        reading = Reading()
        lines = data[:whole].splitlines()
        for number, line in enumerate(lines, 1):
            try:
                reading.feed(line)
            except ValueError as error:
                raise JournalError(
                    f"{self._path}, line {number}: {error}; remove the file to begin without flows"
                ) from error
        self._lines = len(lines)
        return reading.kept()

    def append(self, change: Change, tables: Tables) -> None:
        """After a change is in force, and before it is answered; now and then, all anew."""
        if not change.steps:
            return
        self._file.write(line_of_change(change, tables.next_id))
        self._file.flush()
        self._lines += 1
        if self._lines > 2 * len(tables.flows) + _SLACK:
            self.compact(tables)

    def compact(self, tables: Tables) -> None:
        """Write only what is there, into another file that then takes the place."""
        fresh = self._path.with_name(self._path.name + ".new")
        lines = list(lines_of_all(tables.flows.values(), tables.groups.values(), tables.next_id))
        with fresh.open("wb") as file:
            file.writelines(lines)
        fresh.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab")
        self._lines = len(lines)

    def close(self) -> None:
        self._file.close()

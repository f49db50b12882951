# SPDX-License-Identifier: Apache-2.0
"""A bridge's journal, of which nothing that befalls its file holds up the bridge."""

import contextlib
import logging
import time
from pathlib import Path

from heliograph.flows.change import Change
from heliograph.flows.journal import Journal, JournalError
from heliograph.flows.records import NOTHING, Besides, Kept
from heliograph.flows.tables import Tables

log = logging.getLogger(__name__)

_RETRY = 10.0  # seconds


class Keeper:
    """`name`: of the bridge, for the log."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._journal: Journal | None = None
        self._failed_at: float | None = None
        self._besides = NOTHING

    def load(self) -> Kept | None:
        """What the file holds; None: it is not there, or of no use and put aside."""
        try:
            # A switch that ended before it wrote a first line has left an empty file.
            if not self._path.exists() or not self._path.stat().st_size:
                return None
            journal = Journal(self._path)
        except OSError as error:
            log.error("bridge %s begins without its flows: %s", self._name, error)
            return None
        try:
            kept = journal.load()
        except JournalError as error:
            journal.close()
            aside = self._path.with_name(self._path.name + ".damaged")
            self._path.replace(aside)
            log.error("bridge %s begins without its flows, now in %s: %s", self._name, aside, error)
            return None
        self._journal, self._besides = journal, kept.besides
        return kept

    def append(self, change: Change, tables: Tables) -> None:
        """Keep a change that is in force. What fails is tried again later, as a whole."""
        if self._journal is None:
            return
        try:
            self._journal.append(change, tables)
        except OSError as error:
            self._fail(error)

    def note(self, besides: Besides) -> None:
        """Keep it with the flows."""
        if besides == self._besides:
            return
        self._besides = besides
        if self._journal is not None:
            try:
                self._journal.note(besides)
            except OSError as error:
                self._fail(error)

    def rewrite(self, tables: Tables) -> None:
        """Keep these, and nothing of before."""
        try:
            if self._journal is None:
                self._journal = Journal(self._path, self._besides)
            self._journal.compact(tables)
        except OSError as error:
            self._fail(error)
            return
        if self._failed_at is not None:
            log.warning("bridge %s: its flows are kept in %s again", self._name, self._path)
            self._failed_at = None

    def retry(self, tables: Tables) -> None:
        """Now and then, if it failed."""
        if self._failed_at is not None and time.monotonic() > self._failed_at + _RETRY:
            self.rewrite(tables)

    def _fail(self, error: OSError) -> None:
        if self._failed_at is None:
            log.error(
                "bridge %s: its flows will not survive a restart, for %s cannot be written: %s; "
                "it is tried again",
                self._name,
                self._path,
                error.strerror or error,
            )
        self._failed_at = time.monotonic()
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()
            self._journal = None

    def close(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()

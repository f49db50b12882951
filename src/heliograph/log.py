# SPDX-License-Identifier: Apache-2.0
"""What every process writes to stderr: one line per event, as text or as JSON.

Frames are counters, never log lines; rows are said when their state changes; a fact that
repeats is said at most once a minute, with how often it happened (`Chatter` decides both).
"""

import json
import logging
import sys
import time
from collections.abc import Hashable

LEVELS = ("debug", "info", "warning", "error")
REPEAT_PERIOD = 60.0


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{_when(record)} {record.levelname.lower()} {record.name}: {text}"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "name": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def _when(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def configure(level: str = "info", as_json: bool = False) -> None:
    """Send every logger of this process to stderr; `level` is one of LEVELS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Chatter:
    """Decides what is worth a log line. Times are monotonic seconds, given by the caller."""

    def __init__(self, period: float = REPEAT_PERIOD) -> None:
        self._period = period
        self._states: dict[Hashable, object] = {}
        self._said: dict[Hashable, float] = {}
        self._unsaid: dict[Hashable, int] = {}

    def changed(self, row: Hashable, state: object) -> bool:
        """Whether `state` of `row` is news. None is the state of a row never heard of."""
        if self._states.get(row) == state:
            return False
        if state is None:
            del self._states[row]
        else:
            self._states[row] = state
        return True

    def repeated(self, fact: Hashable, now: float) -> int:
        """Count one occurrence; how many to say now (since it was last said), 0 to keep quiet."""
        count = self._unsaid.get(fact, 0) + 1
        said = self._said.get(fact)
        if said is not None and now - said < self._period:
            self._unsaid[fact] = count
            return 0
        self._said[fact] = now
        self._unsaid[fact] = 0
        return count

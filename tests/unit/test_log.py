# SPDX-License-Identifier: Apache-2.0
"""One line per event, and what is worth one."""

import json
import logging
from collections.abc import Iterator

import pytest

from heliograph import log


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    logging.getLogger("part").warning("row %s", "m0")
    logging.getLogger("part").debug("not said")
    line = capsys.readouterr().err
    assert line.endswith("Z warning part: row m0\n")
    assert line.count("\n") == 1


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("debug", as_json=True)
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("part").exception("failed\nhere")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    event = json.loads(line)
    assert (event["level"], event["name"], event["message"]) == ("error", "part", "failed\nhere")
    assert "ValueError: x" in event["traceback"]


def test_a_state_is_said_when_it_changes() -> None:
    chatter = log.Chatter()
    said = [chatter.changed("m0", state) for state in (None, "bad", "bad", "worse", None, None)]
    assert said == [False, True, False, True, True, False]
    assert chatter.changed("m1", "bad")


def test_a_repeated_fact_is_said_once_a_minute_with_its_count() -> None:
    chatter = log.Chatter()
    said = [chatter.repeated("lost", now) for now in (0.0, 1.0, 59.0, 60.0, 61.0, 200.0)]
    assert said == [1, 0, 0, 3, 0, 2]
    assert chatter.repeated("other", 61.0) == 1

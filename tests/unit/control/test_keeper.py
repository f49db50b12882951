# SPDX-License-Identifier: Apache-2.0
"""A journal whose file cannot be read or written costs flows at a restart, and nothing else."""

import logging
import time
from pathlib import Path

import pytest

from heliograph.control.keeper import Keeper
from heliograph.flows.journal import Journal
from heliograph.flows.records import Besides
from heliograph.flows.tables import Tables
from heliograph.openflow.flows import FlowCommand, FlowMod
from heliograph.openflow.match import Match


def kept(path: Path) -> int:
    found = Keeper("br0", path).load()
    return len(found.flows) if found else -1


def test_what_is_not_there_or_empty_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert kept(path) == -1
    path.touch()  # the switch ended before its first line
    assert kept(path) == -1
    Keeper("br0", path).rewrite(Tables())
    assert kept(path) == 0  # no flow is left, and that is kept, too


def test_a_damaged_one_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"{}\nrubbish\n{}\n")
    assert kept(path) == -1
    assert not path.exists()
    assert (tmp_path / "journal.damaged").read_bytes() == b"{}\nrubbish\n{}\n"
    assert "begins without its flows" in caplog.text
    assert "line 2" in caplog.text


def test_a_full_disk_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "journal"
    tables, keeper = Tables(), Keeper("br0", path)
    keeper.rewrite(tables)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", full)
        broken.setattr(Journal, "note", full)
        broken.setattr(Journal, "compact", full)
        for port in range(3):
            match = Match.of({"in_port": (port, 0xFFFF)})
            mod = FlowMod(command=FlowCommand.ADD, table_id=0, match=match)
            keeper.append(tables.change(mod, 0), tables)
            keeper.note(Besides(port))
            now[0] += 11
            keeper.retry(tables)
        assert kept(path) == 0
    keeper.retry(tables)  # too early
    assert kept(path) == 0
    now[0] += 11
    keeper.retry(tables)
    found = Keeper("br0", path).load()
    assert found is not None
    assert (len(found.flows), found.besides) == (3, Besides(2))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "will not survive a restart" in said[0]
    assert "No space left on device" in said[0]
    assert "kept in" in said[1]
    keeper.close()

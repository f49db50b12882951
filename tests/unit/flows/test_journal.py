# SPDX-License-Identifier: Apache-2.0
"""What is kept of flows and groups comes back, whatever the last write was."""

from dataclasses import astuple
from pathlib import Path

import pytest
from tests.unit.flows.mods import DELETE, MODIFY, TWO, group, ip, mod, port

from heliograph.flows import journal, records
from heliograph.flows.journal import Journal, JournalError
from heliograph.flows.records import Besides
from heliograph.flows.tables import Tables
from heliograph.openflow import actions as a
from heliograph.openflow.flows import (
    Bucket,
    FlowFlags,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
    Selection,
)

MANY: a.Actions = (
    a.SetField("ip_src", 1, 0xFFFF_FFFF),
    a.Load(a.Subfield("reg0", 4, 8), 3),
    a.Move(a.Subfield("reg0", 0, 8), a.Subfield("reg1", 8, 8)),
    a.SetIpv4Src(7),
    a.PushVlan(),
    a.StripVlan(),
    a.DecTtl((0, 3), listed=True),
    a.Controller(64, userdata=b"\x00\xff", extended=True),
    a.Note(b"note\x00\x00"),
    a.Clone((a.Output(a.Port.NORMAL), a.Output(1, 64), a.Clone(()))),
    a.Group(1),
    a.Resubmit(None, 3),
    a.Exit(),
    a.WriteActions(()),
    a.WriteMetadata(1, 3),
    a.GotoTable(9),
)


def state(tables: Tables) -> object:
    flows = {n: astuple(flow) for n, flow in tables.flows.items()}
    return flows, {n: (e.desc, e.created) for n, e in tables.groups.items()}, tables.next_id


def reopened(path: Path) -> Tables:
    tables = Tables()
    book = Journal(path)
    kept = book.load()
    tables.restore(kept.flows, kept.groups, kept.next_id)
    book.close()
    return tables


def filled(path: Path) -> Tables:
    """A journal of additions, changes and removals, flows that others hide among them."""
    tables, book = Tables(), Journal(path)
    buckets = (Bucket(actions=TWO, weight=5, watch_port=2),)
    selection = Selection(method="hash", param=3, fields=(("ip_src", 255),))
    select = group(1, type=GroupType.SELECT, buckets=buckets, selection=selection)
    messages: list[FlowMod | GroupMod] = [
        select,
        group(2, TWO),
        mod(match=ip(1), actions=MANY, cookie=2**63, flags=FlowFlags.SEND_FLOW_REM),
        mod(match=port(1), priority=3, idle_timeout=4, importance=5),
        mod(match=port(1), priority=4),
        mod(match=port(2)),
        mod(match=port(2), flags=FlowFlags.RESET_COUNTS),
        mod(MODIFY, match=port(1), actions=TWO),
        mod(match=port(7)),
        mod(DELETE, match=port(7)),
        group(2, command=GroupCommand.DELETE),
    ]
    for n, message in enumerate(messages):
        book.append(tables.change(message, n), tables)
    book.close()
    return tables


def test_all_comes_back_and_packets_hit_the_same(tmp_path: Path) -> None:
    tables = filled(tmp_path / "flows")
    again = reopened(tmp_path / "flows")
    assert state(again) == state(tables)
    for table, known in zip(again.tables, tables.tables, strict=True):
        assert (table.flows, table.masks) == (known.flows, known.masks)
    winner = again.tables[0].winner(port(1))
    assert winner and winner.priority == 4
    assert again.users(1) == 1


def test_a_torn_end_is_cut_off_and_what_follows_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    tables = filled(path)
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole + whole[:200][:-cut].replace(b"\n", b""))
        book = Journal(path)
        kept = book.load()
        again = Tables()
        again.restore(kept.flows, kept.groups, kept.next_id)
        assert state(again) == state(tables)
        book.append(again.change(mod(match=port(9)), 50), again)
        book.close()
        assert state(reopened(path)) == state(again)


def test_a_change_of_several_lines_counts_when_all_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_AT_ONCE", 4)
    path = tmp_path / "flows"
    tables = filled(path)
    before, whole = state(tables), path.read_bytes()
    book = Journal(path)
    mods = [mod(DELETE, match=port(1)), *(mod(match=port(n)) for n in range(10, 19))]
    book.append(tables.change_all(mods, 60), tables)
    book.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(whole.splitlines()) + 3
    assert state(reopened(path)) == state(tables)
    for cut in (1, 2):
        path.write_bytes(b"".join(lines[:-cut]))
        assert state(reopened(path)) == before
        assert path.read_bytes() == whole


def test_what_a_flow_counted_elsewhere_is_kept_with_it(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    tables, book = Tables(), Journal(path)
    for note in (Besides(1, 5, 500, True), Besides(1, -7, -700, False)):
        book.note(note)
        book.append(tables.change(mod(match=port(1)), 1), tables)
        assert Journal(path).load().besides == note
        book.compact(tables)
        book.close()
        book = Journal(path)
        assert book.load().besides == note
    book.compact(tables)
    assert book.load().besides == note
    book.close()


def test_flows_that_are_alike_share_what_they_have_in_common(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    tables, book = Tables(), Journal(path)
    for n in range(2):
        book.append(tables.change(mod(match=port(n), actions=TWO), 1), tables)
    one, other = Journal(path).load().flows
    assert one.actions is other.actions
    assert one.match.fields[0][0] is other.match.fields[0][0]
    book.close()


def test_damage_in_the_middle_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"{\n", b"[]\n", b'{"flows":[[1]]}\n', b'{"flows":7}\n', b"\xff\n"):
        path.write_bytes(b"".join([*lines[:2], damage, *lines[3:]]))
        with pytest.raises(JournalError, match="line 3"):
            Journal(path).load()


def test_the_file_stays_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SLACK", 10)
    path = tmp_path / "flows"
    tables, book = Tables(), Journal(path)
    for n in range(100):
        book.append(tables.change(mod(match=port(1), priority=n % 3), n), tables)
        assert len(path.read_bytes().splitlines()) <= 20
    book.close()
    assert state(reopened(path)) == state(tables)
    assert [p.name for p in tmp_path.iterdir()] == ["flows"]


def test_a_bundle_counts_for_each_of_its_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_SLACK", 10)
    path = tmp_path / "flows"
    tables, book = Tables(), Journal(path)
    for n in range(100):
        mods = [mod(match=port(p), cookie=n) for p in range(20)]
        book.append(tables.change_all(mods, n), tables)
    assert len(path.read_bytes()) < 20_000
    book.close()
    assert state(reopened(path)) == state(tables)


def test_ids_are_not_given_again_after_their_flows_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    tables, book = Tables(), Journal(path)
    book.append(tables.change(mod(), 0), tables)
    book.append(tables.change(mod(DELETE), 0), tables)
    book.compact(tables)
    book.close()
    again = reopened(path)
    again.change(mod(), 0)
    assert list(again.flows) == [2]

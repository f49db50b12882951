# SPDX-License-Identifier: Apache-2.0
"""The database file: crashes, damage, compaction, and the stock tools on the same file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heliograph.errors import AlreadyRunningError
from heliograph.ovsdb import ovs_schema, storage
from heliograph.ovsdb.database import Database
from heliograph.ovsdb.operations import Execution
from heliograph.ovsdb.storage import Log, StorageError, commit_record, encode_record

SCHEMA = ovs_schema.open_vswitch()


def insert_row(name: str) -> list[Any]:
    """Operations that add a QoS row, which is a root row and so needs no bridge."""
    ids = ["map", [["name", name]]]
    return [{"op": "insert", "table": "QoS", "row": {"type": name, "external_ids": ids}}]


def commit(log: Log, database: Database, operations: list[Any]) -> None:
    outcome = Execution(database, lambda name: False, 0.0).run(operations)
    assert outcome.commit is not None, outcome.results
    log.append([commit_record(SCHEMA, outcome.commit)])


def names(database: Database) -> list[str]:
    return sorted(str(row["type"][0]) for row in database.tables["QoS"].rows.values())


def write(path: Path, *rows: str) -> list[int]:
    """Makes a file with a transaction for each row; returns where each record begins."""
    log = Log(path, SCHEMA)
    database = log.load()
    offsets = []
    for row in rows:
        offsets.append(path.stat().st_size)
        commit(log, database, insert_row(row))
    log.close()
    return offsets


def read(path: Path) -> Database:
    log = Log(path, SCHEMA)
    try:
        return log.load()
    finally:
        log.close()


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "conf.db"
    write(path, "a", "b")
    assert names(read(path)) == ["a", "b"]


@pytest.mark.parametrize("keep", [1, 20, 70, 100, -1])
def test_a_torn_last_record_is_cut_off(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "conf.db"
    last = write(path, "a", "b")[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[: last + keep] if keep > 0 else whole[:keep])
    with caplog.at_level(logging.WARNING):
        assert names(read(path)) == ["a"]
    assert f"incomplete record at offset {last}" in caplog.text
    assert path.stat().st_size == last
    write(path, "c")
    assert names(read(path)) == ["a", "c"]


def test_blocks_that_were_never_written_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "conf.db"
    write(path, "a")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert names(read(path)) == ["a"]
    assert path.stat().st_size == size


@pytest.mark.parametrize("at", [3, 90])
def test_damage_in_the_middle_is_named_and_nothing_is_lost(tmp_path: Path, at: int) -> None:
    path = tmp_path / "conf.db"
    first, second = write(path, "a", "b")
    damaged = bytearray(path.read_bytes())
    damaged[first + at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StorageError, match=rf"{path} is damaged at offset {first}") as caught:
        read(path)
    assert f"truncate --size={first} " in str(caught.value)
    assert path.read_bytes() == damaged
    assert second > first


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"QoS": {"x": {}}}, "no row of table QoS"),
        ({"Nonsense": {}}, "no table Nonsense"),
        ({"QoS": {"00000000-0000-0000-0000-000000000001": {"typo": 1}}}, "No column typo"),
        ({"QoS": []}, "not an object"),
    ],
)
def test_records_that_do_not_fit_are_errors(tmp_path: Path, record: Any, text: str) -> None:
    path = tmp_path / "conf.db"
    write(path)
    path.write_bytes(path.read_bytes() + encode_record(record))
    with pytest.raises(StorageError, match=text):
        read(path)


@pytest.mark.parametrize("content", [b"hello\n" * 40, b"{}", encode_record({"name": "Other"})])
def test_another_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "conf.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=str(path)):
        read(path)
    assert path.read_bytes() == content


def test_dangling_references_are_not_served(tmp_path: Path) -> None:
    path = tmp_path / "conf.db"
    write(path)
    queue = ["map", [[1, ["uuid", "00000000-0000-0000-0000-000000000009"]]]]
    row = {"QoS": {"00000000-0000-0000-0000-000000000001": {"queues": queue}}}
    path.write_bytes(path.read_bytes() + encode_record(row))
    with pytest.raises(StorageError, match="not consistent"):
        read(path)


def test_ephemeral_columns_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "conf.db"
    log = Log(path, SCHEMA)
    database = log.load()
    row = {"system_type": "x", "statistics": ["map", [["cpu", "1"]]]}
    commit(log, database, [{"op": "insert", "table": "Open_vSwitch", "row": row}])
    update = {"op": "update", "table": "Open_vSwitch", "where": []}
    change = Execution(database, lambda name: False, 0.0).run(
        [{**update, "row": {"statistics": ["map", [["cpu", "2"]]]}}]
    )
    assert change.commit is not None
    assert commit_record(SCHEMA, change.commit) == b""
    log.close()
    (stored,) = read(path).tables["Open_vSwitch"].rows.values()
    assert (stored["system_type"], stored["statistics"]) == (("x",), {})


def test_compaction_keeps_the_rows_and_later_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "COMPACT_FROM", 1000)
    path = tmp_path / "conf.db"
    log = Log(path, SCHEMA)
    database = log.load()
    commit(log, database, insert_row("a"))
    update = {"op": "update", "table": "QoS", "where": []}
    assert not log.wants_compaction or path.stat().st_size > 1000
    for number in range(400):
        ids = ["map", [["count", f"{number} " + "x" * 200]]]
        commit(log, database, [{**update, "row": {"external_ids": ids}}])
    assert log.wants_compaction
    before = path.stat().st_size
    log.compact({name: dict(table.rows) for name, table in database.tables.items()})
    assert path.stat().st_size < before / 4
    assert not log.wants_compaction
    commit(log, database, insert_row("b"))
    log.close()
    again = read(path)
    assert names(again) == ["a", "b"]
    assert again.tables["QoS"].rows.keys() == database.tables["QoS"].rows.keys()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_symbolic_link_survives_compaction(tmp_path: Path) -> None:
    real, link = tmp_path / "real.db", tmp_path / "conf.db"
    write(real, "a")
    link.symlink_to(real)
    log = Log(link, SCHEMA)
    database = log.load()
    log.compact({name: dict(table.rows) for name, table in database.tables.items()})
    log.close()
    assert link.is_symlink()
    assert names(read(real)) == ["a"]


def test_a_full_disk_keeps_nothing_of_the_transaction(tmp_path: Path) -> None:
    path = tmp_path / "conf.db"
    log = Log(path, SCHEMA)
    database = log.load()
    commit(log, database, insert_row("a"))
    size = path.stat().st_size
    working = log._file
    assert working is not None
    log._file = Path("/dev/full").open("r+b")  # noqa: SIM115 - append closes it
    with pytest.raises(StorageError, match="No space left"):
        log.append([b"x" * 100_000])
    working.close()
    assert path.stat().st_size == size
    commit(log, database, insert_row("b"))
    log.close()
    assert names(read(path)) == ["a", "b"]


def test_append_returns_when_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "conf.db"
    log = Log(path, SCHEMA)
    log.load()
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(path.stat().st_size))
    log.append([encode_record({"_date": 1}), encode_record({"_date": 2})])
    assert synced == [path.stat().st_size]  # one sync for both, after both were written
    log.close()


def test_after_a_failed_sync_nothing_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    log = Log(tmp_path / "conf.db", SCHEMA)
    log.load()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            log.append([encode_record({"_date": 1})])
    with pytest.raises(StorageError, match="restart when the disk is mended"):
        log.append([encode_record({"_date": 2})])
    log.close()


def test_two_processes_cannot_have_one_file(tmp_path: Path, stock: Any) -> None:
    path = tmp_path / "conf.db"
    write(path, "a")
    hold = (
        "import sys, pathlib; from heliograph.ovsdb import ovs_schema, storage\n"
        "log = storage.Log(pathlib.Path(sys.argv[1]), ovs_schema.open_vswitch())\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunningError, match=str(path)):
            Log(path, SCHEMA)
        assert "cannot lock" in stock.run("ovsdb-tool", "compact", path, ok=False)
        other.communicate(b"", timeout=60)
    assert names(read(path)) == ["a"]


def test_stock_tools_read_our_file(tmp_path: Path, stock: Any) -> None:
    path = tmp_path / "conf.db"
    write(path, "a", "b")
    log = Log(path, SCHEMA)
    database = log.load()
    update = {"op": "update", "table": "QoS", "where": [["type", "==", "a"]]}
    ids = ["map", [["other", "\u00fc"]]]
    comment = {"op": "comment", "comment": "why"}
    commit(log, database, [comment, {**update, "row": {"external_ids": ids}}])
    commit(log, database, [{"op": "delete", "table": "QoS", "where": [["type", "==", "b"]]}])
    log.close()
    select = {"op": "select", "table": "QoS", "where": [], "columns": ["type", "external_ids"]}

    def stock_rows() -> Any:
        return json.loads(
            stock.run("ovsdb-tool", "query", path, json.dumps(["Open_vSwitch", select]))
        )

    expected = [{"rows": [{"type": "a", "external_ids": ids}]}]
    assert stock_rows() == expected
    assert '"why"' in stock.run("ovsdb-tool", "show-log", path)
    stock.run("ovsdb-tool", "compact", path)
    assert stock_rows() == expected
    assert names(read(path)) == ["a"]


def test_a_file_of_the_stock_server_opens_here(tmp_path: Path, stock: Any) -> None:
    """Also with its older schema: columns it has not get their defaults."""
    path = tmp_path / "conf.db"
    schema = stock.root / "usr/share/openvswitch/vswitch.ovsschema"
    stock.run("ovsdb-tool", "create", path, schema)
    transaction = [
        "Open_vSwitch",
        {"op": "insert", "table": "Mirror", "uuid-name": "m", "row": {"name": "m0"}},
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "p0"}},
        {
            "op": "insert",
            "table": "Port",
            "uuid-name": "p",
            "row": {"name": "p0", "trunks": ["set", [1, 2]], "interfaces": ["named-uuid", "i"]},
        },
        {
            "op": "insert",
            "table": "Bridge",
            "uuid-name": "b",
            "row": {"name": "b", "mirrors": ["named-uuid", "m"], "ports": ["named-uuid", "p"]},
        },
        {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}},
    ]
    change = [
        "Open_vSwitch",
        {
            "op": "mutate",
            "table": "Port",
            "where": [],
            "mutations": [["trunks", "insert", 3], ["trunks", "delete", 1]],
        },
    ]  # a "diff" record
    for operations in (transaction, change):
        stock.run("ovsdb-tool", "transact", path, json.dumps(operations))
    database = read(path)
    (mirror,) = database.tables["Mirror"].rows.values()
    (port,) = database.tables["Port"].rows.values()
    assert (mirror["name"], mirror["filter"], port["trunks"]) == (("m0",), (), (2, 3))
    assert stock.run("ovsdb-tool", "db-version", path).strip() == SCHEMA.version

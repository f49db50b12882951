# SPDX-License-Identifier: Apache-2.0
"""The database file, in Open vSwitch's own log format (ovsdb(5)).

A file is a sequence of records: a line `OVSDB JSON <length> <SHA-1>`, then that many bytes,
JSON text and a newline. The first record is the schema, each other one a transaction. The
distribution's ovsdb-tool reads these files and ovsdb-server serves them; theirs open here.

What a crash can leave is an incomplete last record, never acknowledged: it is cut off. A bad
record with others behind it is damage of another kind, and nothing is served from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from heliograph.errors import AlreadyRunningError, HeliographError
from heliograph.ovsdb import wire
from heliograph.ovsdb.database import Commit, Database, Row
from heliograph.ovsdb.errors import Json, MalformedError, OvsdbError, WireError
from heliograph.ovsdb.schema import Column, Schema, TableSchema
from heliograph.ovsdb.transaction import Transaction
from heliograph.ovsdb.types import Datum, is_uuid

log = logging.getLogger(__name__)

_HEADER = re.compile(rb"OVSDB (JSON|CLUSTER) (\d{1,12}) ([0-9a-f]{40})\n")
_LONGEST_HEADER = 80
Snapshot = dict[str, dict[str, Row]]  # table -> UUID -> row

# ovsdb-server compacts from 10 MB on when the file has doubled. A smaller start and a larger
# factor suit a database of some 100 KB: replaying 4 MB at start takes well under a second,
# and compacting never more than a fourth part of what is written.
COMPACT_FROM = 4 << 20  # bytes
COMPACT_FACTOR = 4


class StorageError(HeliographError):
    """The database file cannot be used; the text names it, the offset, and what to do."""


class Record(NamedTuple):
    offset: int
    json: dict[str, Json]


def encode_record(json: Json) -> bytes:
    """One record of the log."""
    text = wire.encode(json) + b"\n"
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return f"OVSDB JSON {len(text)} {digest}\n".encode() + text


def commit_record(schema: Schema, commit: Commit) -> bytes:
    """The record of a commit; empty if it changed nothing that is kept on disk."""
    record: dict[str, Json] = {}
    as_diff = not any(
        _is_ambiguous(schema.tables[name], old, new)
        for name, changed in commit.changes.items()
        for old, new in changed.values()
    )
    for name, changed in commit.changes.items():
        table = schema.tables[name]
        rows = {
            row: rows
            for row, (old, new) in changed.items()
            if (rows := _row_json(table, old, new, as_diff)) != {} or old is None
        }
        if rows:
            record[name] = rows
    if not record:
        return b""
    if commit.comment:
        record["_comment"] = commit.comment
    if as_diff:
        record["_is_diff"] = True
    return encode_record({"_date": _now(), **record})


def _is_ambiguous(table: TableSchema, old: Row | None, new: Row | None) -> bool:
    # ovsdb-server 3.1 reads a difference from a default that is not empty, such as the one
    # target "" of a NetFlow row, as the new value. So such changes are written as values.
    return bool(table.filled) and any(
        old is not None and new is not None and old[name] == default and new[name] != default
        for name, default in table.filled.items()
    )


def _row_json(table: TableSchema, old: Row | None, new: Row | None, as_diff: bool) -> Json:
    """A new row without its defaults, the changed columns of an old one, None for one deleted."""
    if new is None:
        return None
    if old is None:
        return _new_row_json(table, new)
    changed: dict[str, Json] = {}
    for name, column in table.columns.items():
        if column.persistent and old[name] is not new[name] and old[name] != new[name]:
            datum = column.type.diff(old[name], new[name]) if as_diff else new[name]
            changed[name] = column.type.to_json(datum)
    return changed


def _new_row_json(table: TableSchema, row: Row) -> Json:
    return {
        column.name: column.type.to_json(row[column.name])
        for column in table.columns.values()
        if column.persistent and row[column.name] != column.type.default
    }


def _now() -> int:
    return time.time_ns() // 1_000_000


class Log:
    """An open, locked database file. Its methods block; one thread at a time may call them."""

    def __init__(self, path: Path, schema: Schema) -> None:
        """Locks `path`. Raises AlreadyRunningError or StorageError."""
        self.path = path.resolve()  # so that a symbolic link survives compaction
        self._schema = schema
        self._broken = ""
        self._file: BinaryIO | None = None
        self._size = 0
        self._compact_at = 0
        self._lock = _lock(self.path)

    def load(self) -> Database:
        """The database in the file, which is made if there is none. Raises StorageError."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            self._replace({})
        database = Database(self._schema)
        with self._naming_errors():
            self._file = self.path.open("r+b")
            old_schema, rows, end, total = _replay(self._file, self.path, self._schema)
            if end < total:
                log.warning(
                    "%s: cut off %d bytes of an incomplete record at offset %d",
                    self.path,
                    total - end,
                    end,
                )
                self._file.truncate(end)
                os.fsync(self._file.fileno())
            self._file.seek(end)
        self._size = end
        _fill(database, rows, self.path)
        if old_schema != self._schema.json:
            log.info("%s: written anew with schema version %s", self.path, self._schema.version)
            self.compact({name: table.rows for name, table in database.tables.items()})
        else:
            self._compact_at = max(COMPACT_FROM, self._size)
        return database

    def append(self, records: Iterable[bytes]) -> None:
        """Writes records and waits until they are on disk. Raises StorageError, having kept
        none of them."""
        if self._broken:
            raise StorageError(self._broken)
        data = b"".join(records)
        assert self._file is not None
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as fault:
            self._cut_back(fault)
            raise StorageError(f"{self.path}: {fault.strerror}") from fault
        try:
            os.fdatasync(self._file.fileno())
        except OSError as fault:
            # After a failed sync the kernel forgets which pages were not written, so a later
            # success would mean nothing: no more is accepted.
            self._broken = f"{self.path}: {fault.strerror}; restart when the disk is mended"
            raise StorageError(self._broken) from fault
        self._size += len(data)

    def _cut_back(self, fault: OSError) -> None:
        assert self._file is not None
        try:
            with contextlib.suppress(OSError):
                self._file.close()  # drops what the buffer still holds
            self._file = self.path.open("r+b")
            self._file.truncate(self._size)
            self._file.seek(self._size)
        except OSError:
            self._broken = f"{self.path}: {fault.strerror}; restart when the disk is mended"

    @property
    def wants_compaction(self) -> bool:
        return self._size > self._compact_at

    def compact(self, snapshot: Snapshot) -> None:
        """Replaces the file by one that holds `snapshot` alone. Raises StorageError, after
        which the old file is in use as before."""
        self._compact_at = 2 * self._size  # when it fails, not again at once
        with self._naming_errors():
            self._replace(snapshot)
            old, self._file = self._file, self.path.open("r+b")
            if old is not None:
                old.close()
            self._size = self._file.seek(0, os.SEEK_END)
        self._compact_at = max(COMPACT_FROM, COMPACT_FACTOR * self._size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        os.close(self._lock)

    def _replace(self, snapshot: Snapshot) -> None:
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with self._naming_errors():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
            with os.fdopen(descriptor, "wb") as file:
                file.write(encode_record(self._schema.json))
                file.write(self._snapshot_record(snapshot))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            _sync_directory(self.path.parent)

    def _snapshot_record(self, snapshot: Snapshot) -> bytes:
        tables = {
            name: {
                row: _new_row_json(self._schema.tables[name], data) for row, data in rows.items()
            }
            for name, rows in snapshot.items()
            if rows
        }
        if not tables:
            return b""
        return encode_record({"_date": _now(), "_comment": "compacting database", **tables})

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise StorageError(f"{self.path}: {fault.strerror}") from fault


def _lock(path: Path) -> int:
    # The name and the kind of lock are ovsdb-server's and ovsdb-tool's, so that they and we
    # keep each other out.
    lock = path.with_name(f".{path.name}.~lock~")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as fault:
        raise StorageError(f"{lock}: {fault.strerror}") from fault
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise AlreadyRunningError(
            f"{path} is in use by another process (it holds {lock})"
        ) from None
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_records(file: BinaryIO, path: Path) -> Iterator[Record]:
    """The records up to the end or an incomplete last one; raises StorageError for damage."""
    total = os.fstat(file.fileno()).st_size
    offset = 0
    while offset < total:
        file.seek(offset)
        header = file.readline(_LONGEST_HEADER)
        match = _HEADER.fullmatch(header)
        if match is None:
            if _is_torn(file, offset, header):
                return
            raise _damaged(path, offset, "this is no record")
        if match[1] == b"CLUSTER":
            raise StorageError(
                f"{path} is a clustered database; convert it with ovsdb-tool cluster-to-standalone"
            )
        end = offset + len(header) + int(match[2])
        text = file.read(int(match[2]))
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        if end > total or digest != match[3].decode():
            if end >= total:
                return  # cut short, or its last pages never reached the disk
            raise _damaged(path, offset, "the record's SHA-1 differs")
        try:
            yield Record(offset, wire.decode(text))
        except WireError as fault:
            raise _damaged(path, offset, str(fault)) from None
        offset = end


def _is_torn(file: BinaryIO, offset: int, header: bytes) -> bool:
    """True for part of a header at the end of the file, or for blocks never written."""
    file.seek(offset)
    rest = file.read()
    return not rest.strip(b"\0") or (header == rest and b"\n" not in rest)


def _damaged(path: Path, offset: int, what: str) -> StorageError:
    return StorageError(
        f"{path} is damaged at offset {offset}: {what}. Restore the file, or give up all from "
        f"there on with: truncate --size={offset} {path}"
    )


def _replay(file: BinaryIO, path: Path, schema: Schema) -> tuple[Json, Snapshot, int, int]:
    """The schema in the file, the rows, where the good records end, and the file's size."""
    total = os.fstat(file.fileno()).st_size
    rows: Snapshot = {name: {} for name in schema.tables}
    old_schema: Json = None
    end = 0
    for offset, json in _read_records(file, path):
        if old_schema is None:
            old_schema = json
            if json.get("name") != schema.name:
                raise StorageError(f"{path} is not a database {schema.name}: {json.get('name')!r}")
        else:
            try:
                _apply(schema, rows, json)
            except OvsdbError as fault:
                raise _damaged(path, offset, str(fault)) from None
        end = file.tell()
    if old_schema is None:
        raise StorageError(f"{path} is not an OVSDB file: it does not begin with a whole record")
    return old_schema, rows, end, total


def _apply(schema: Schema, rows: Snapshot, record: dict[str, Json]) -> None:
    is_diff = record.get("_is_diff", False)
    for name, changed in record.items():
        if name.startswith("_"):
            continue
        table = schema.tables.get(name)
        if table is None:
            raise OvsdbError("unknown table", f"this version has no table {name}")
        if not isinstance(changed, dict):
            raise MalformedError(f"table {name} is not an object")
        for row, json in changed.items():
            if not is_uuid(row) or not isinstance(json, dict | None):
                raise MalformedError(f"no row of table {name}: {row!r}")
            if json is None:
                rows[name].pop(row, None)
                continue
            old = rows[name].get(row)
            new = dict(table.defaults if old is None else old)
            for column_name, value in json.items():
                column = table.column(column_name)
                as_diff = is_diff and old is not None and column.type.is_composite
                new[column_name] = _column_datum(column, new[column_name], value, as_diff)
            rows[name][row] = new


def _column_datum(column: Column, old: Datum, value: Json, as_diff: bool) -> Datum:
    if not as_diff:
        return column.type.parse(value)
    new = column.type.apply_diff(old, column.type.relaxed.parse(value))
    column.type.check_count(new)
    return new


def _fill(database: Database, rows: Snapshot, path: Path) -> None:
    """Puts the rows into `database` as one transaction, which checks all constraints."""
    transaction = Transaction(database)
    for name, table_rows in rows.items():
        for row, data in table_rows.items():
            transaction.insert(database.tables[name], row, data)
    try:
        transaction.commit()
    except OvsdbError as fault:
        raise StorageError(f"{path} is not consistent: {fault}") from None

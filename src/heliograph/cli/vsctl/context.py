# SPDX-License-Identifier: Apache-2.0
"""What the commands of one line share: the schema, the transaction, the names of new rows."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliograph.cli.vsctl import values
from heliograph.cli.vsctl.errors import VsctlError, nearest
from heliograph.cli.vsctl.tables import Table
from heliograph.cli.vsctl.transaction import Snapshot, Transaction
from heliograph.ovsdb.schema import Column, Schema, TableSchema
from heliograph.ovsdb.types import BaseType, Datum, is_uuid

# How a record may be named besides its UUID: (table searched, column that must hold the name,
# column of that row that refers to the record). No name column: "." names the only row; no
# reference column: the row found is the record.
NAMES: Mapping[str, tuple[str, str | None, str | None]] = {
    "AutoAttach": ("Bridge", "name", "auto_attach"),
    "Bridge": ("Bridge", "name", None),
    "Controller": ("Bridge", "name", "controller"),
    "Flow_Sample_Collector_Set": ("Flow_Sample_Collector_Set", "id", None),
    "Flow_Table": ("Flow_Table", "name", None),
    "IPFIX": ("Bridge", "name", "ipfix"),
    "Interface": ("Interface", "name", None),
    "Manager": ("Manager", "target", None),
    "Mirror": ("Mirror", "name", None),
    "NetFlow": ("Bridge", "name", "netflow"),
    "Open_vSwitch": ("Open_vSwitch", None, None),
    "Port": ("Port", "name", None),
    "QoS": ("Port", "name", "qos"),
    "SSL": ("Open_vSwitch", None, "ssl"),
    "sFlow": ("Bridge", "name", "sflow"),
}
UUID_PREFIX_LEAST = 4


@dataclass
class Symbol:
    """A row that --id=@name stands for."""

    row: str
    created: bool = False
    strong: bool = False
    weak: bool = False


@dataclass
class Needs:
    """The tables and columns a line must see, gathered before it connects its replica."""

    tables: dict[str, set[str]] = field(default_factory=dict)

    def add(self, table: str, *columns: str) -> None:
        self.tables.setdefault(table, set()).update(columns)

    def named(self, table: str) -> None:
        """What it takes to find a record of `table` by name."""
        self.add(table)
        if table in NAMES:
            where, name, reference = NAMES[table]
            self.add(where, *(column for column in (name, reference) if column))


class Context:
    """One run of a line on one snapshot."""

    def __init__(self, schema: Schema, snapshot: Snapshot, writes: bool) -> None:
        """`writes`: the line may change rows, so it makes the Open_vSwitch row if there is none."""
        self.schema = schema
        types = {
            name: {column.name: column.type for column in table.columns.values()}
            for name, table in schema.tables.items()
        }
        self.transaction = Transaction(types, snapshot)
        self.symbols: dict[str, Symbol] = {}
        self.new_interfaces: list[str] = []
        self.warnings: list[str] = []
        roots = list(self.transaction.rows("Open_vSwitch"))
        if not roots and writes:
            roots = [self.transaction.insert("Open_vSwitch")]
            self.transaction.verify_empty("Open_vSwitch")
        self.root = roots[0] if roots else ""

    # ---- rows ----

    def get(self, table: str, row: str, column: str) -> Datum:
        return self.transaction.read(table, row, column)

    def string(self, table: str, row: str, column: str) -> str:
        """The one string (or UUID) of a scalar column, "" if there is none."""
        return next((str(atom) for atom in self.get(table, row, column)), "")

    def references(self, table: str, row: str, column: str) -> list[str]:
        return [str(atom) for atom in self.get(table, row, column)]

    def record(self, table: str, name: str, must_exist: bool = True) -> str | None:
        """The row that `name` means: a UUID, a name (NAMES), a prefix of just one UUID."""
        row: str | None = None
        if is_uuid(name) and self.transaction.exists(table, name.lower()):
            row = name.lower()
        row = row or self._by_name(table, name) or self._by_prefix(table, name)
        if row is None and must_exist:
            known = self._names(table)
            raise VsctlError(f'no row "{name}" in table {table}{nearest(name, known)}')
        return row

    def _by_name(self, table: str, name: str) -> str | None:
        if table not in NAMES:
            return None
        where, column, reference = NAMES[table]
        if column is None:
            found = list(self.transaction.rows(where)) if name == "." else []
        else:
            found = [
                row for row in self.transaction.rows(where) if self._is(where, row, column, name)
            ]
        if column is not None and len(found) > 1:
            raise VsctlError(f'multiple rows in {table} match "{name}"')
        if len(found) != 1:
            return None
        if reference is None:
            return found[0]
        self.transaction.verify(where, found[0], reference)
        rows = self.references(where, found[0], reference)
        return rows[0] if len(rows) == 1 and self.transaction.exists(table, rows[0]) else None

    def _is(self, table: str, row: str, column: str, name: str) -> bool:
        data = self.get(table, row, column)
        return len(data) == 1 and str(next(iter(data))) == name

    def _names(self, table: str) -> Iterable[str]:
        where, column, _ = NAMES.get(table, (table, None, None))
        if column is None:
            return []
        return [self.string(where, row, column) for row in self.transaction.rows(where)]

    def _by_prefix(self, table: str, prefix: str) -> str | None:
        if len(prefix) < UUID_PREFIX_LEAST or not set(prefix.lower()) <= set("0123456789abcdef-"):
            return None
        found = [row for row in self.transaction.rows(table) if row.startswith(prefix.lower())]
        if len(found) > 1:
            raise VsctlError(
                f"{table} contains 2 or more rows whose UUIDs begin with {prefix}: "
                f"at least {found[0]} and {found[1]}"
            )
        return found[0] if found else None

    # ---- names of rows that do not exist yet ----

    def symbol(self, name: str) -> Symbol:
        return self.symbols.setdefault(name, Symbol(str(uuid.uuid4())))

    def create_symbol(self, name: str) -> Symbol:
        if not name.startswith("@"):
            raise VsctlError(f'row id "{name}" does not begin with "@"')
        symbol = self.symbol(name)
        if symbol.created:
            raise VsctlError(f'row id "{name}" may only be specified on one --id option')
        symbol.created = True
        return symbol

    def resolve(self, name: str, base: BaseType) -> str:
        """A values.Resolve: the row a column's "@name" means, noted as referred to."""
        symbol = self.symbol(name)
        symbol.strong |= base.strong
        symbol.weak |= base.weak
        return symbol.row

    def check_symbols(self) -> None:
        """After the last command: each name was created, and something keeps its row alive."""
        for name, symbol in self.symbols.items():
            if not symbol.created:
                raise VsctlError(
                    f'row id "{name}" is referenced but never created '
                    f'(e.g. with "-- --id={name} create ...")'
                )
            if not symbol.strong:
                kept = "only a weak reference to it" if symbol.weak else "no reference to it"
                self.warnings.append(
                    f'row id "{name}" was created but {kept} was inserted, '
                    "so it will not actually appear in the database"
                )


def _score(name: str, word: str) -> int:
    """How well `word` abbreviates `name`: 0 not at all, else the more the better."""
    if name == word:
        return 3
    folded, short = (text.lower().replace("-", "_") for text in (name, word))
    if folded == short:
        return 2
    return int(folded.startswith(short) and bool(short))


def _matches(names: Iterable[str], word: str) -> list[str]:
    scored = [(_score(name, word), name) for name in names]
    best = max((score for score, _ in scored), default=0)
    return [name for score, name in scored if score == best] if best else []


def find_table(schema: Schema, word: str) -> TableSchema:
    """The table that `word` names or abbreviates."""
    found = _matches(sorted(schema.tables), word)
    if len(found) == 1:
        return schema.tables[found[0]]
    if found:
        raise VsctlError(f'"{word}" matches multiple table names: {", ".join(found)}')
    raise VsctlError(f'unknown table "{word}"{nearest(word, schema.tables)}')


def find_column(table: TableSchema, word: str) -> Column:
    """The column that `word` names or abbreviates."""
    names = sorted(table.columns)
    found = _matches(names, word)
    if len(found) == 1:
        return table.columns[found[0]]
    if found:
        raise VsctlError(
            f'{table.name} contains more than one column whose name matches "{word}": '
            f"{', '.join(found)}"
        )
    raise VsctlError(
        f'{table.name} does not contain a column whose name matches "{word}"{nearest(word, names)}'
    )


@dataclass(frozen=True)
class Argument:
    """`column[:key]` or `column[:key]OPERATORvalue`, taken apart; key and value still as text."""

    column: Column
    key: str | None
    operator: str = ""
    value: str = ""


def parse_argument(table: TableSchema, text: str, operators: tuple[str, ...] = ()) -> Argument:
    """Take `text` apart; with `operators` one of them and a value must follow."""
    name, at = values.token(text)
    if not name:
        raise VsctlError(f"{text}: missing column name")
    column = find_column(table, name)
    key: str | None = None
    if text[at : at + 1] == ":":
        key, at = values.token(text, at + 1)
    rest = text[at:]
    if not operators:
        if rest:
            raise VsctlError(f'{text}: trailing garbage "{rest}" in argument')
        return Argument(column, key)
    fitting = [op for op in operators if rest.startswith(op) and len(rest) > len(op)]
    if not fitting:
        quoted = [f'"{op}"' for op in operators]
        choice = quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])}, or {quoted[-1]}"
        raise VsctlError(f"{text}: argument does not end in {choice} followed by a value.")
    operator = max(fitting, key=len)
    return Argument(column, key, operator, rest[len(operator) :])


@dataclass
class Command:
    """One command of a line with what it has printed."""

    name: str
    arguments: list[str]
    options: dict[str, str | None]
    output: Table | str = ""

    def has(self, option: str) -> bool:
        return option in self.options

    def line(self, text: str) -> None:
        assert isinstance(self.output, str)
        self.output += text + "\n"

# SPDX-License-Identifier: Apache-2.0
"""The commands on any table: get set add remove clear create destroy find list wait-until.

Each has two halves: `need_*` says which columns it will look at, then the command itself works
on a Context.
"""

from heliograph.cli.vsctl import values
from heliograph.cli.vsctl.context import (
    Argument,
    Command,
    Context,
    Needs,
    find_column,
    find_table,
    parse_argument,
)
from heliograph.cli.vsctl.errors import TryAgainError, VsctlError, nearest
from heliograph.cli.vsctl.tables import Cell, Table
from heliograph.ovsdb.schema import Column, Schema, TableSchema
from heliograph.ovsdb.types import UNLIMITED, ColumnType, Datum

EQUALS = ("=",)
RELATIONS = (
    *("=", "!=", "<", ">", "<=", ">="),
    *("{=}", "{!=}", "{<}", "{>}", "{<=}", "{>=}", "{in}", "{not-in}"),
)
# The `_uuid` pseudo-column is printed like a column of this type.
UUID_TYPE = ColumnType.from_json("uuid")


def _is_uuid_column(word: str) -> bool:
    return word.lower() in ("_uuid", "-uuid")


def _check_mutable(context: Context, table: TableSchema, row: str, column: Column) -> None:
    if not column.mutable and not context.transaction.is_new(row):
        raise VsctlError(f"cannot modify read-only column {column.name} in table {table.name}")


# ---- get ----


def need_get(schema: Schema, command: Command, needs: Needs) -> None:
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    for word in command.arguments[2:]:
        if not _is_uuid_column(word):
            needs.add(table.name, parse_argument(table, word).column.name)


def get(context: Context, command: Command) -> None:
    name = command.options.get("--id")
    must_exist = not command.has("--if-exists")
    if name is not None and not must_exist:
        raise VsctlError("--if-exists and --id may not be specified together")
    table = find_table(context.schema, command.arguments[0])
    row = context.record(table.name, command.arguments[1], must_exist)
    if row is None:
        return
    if name is not None:
        if name in context.symbols and not context.symbols[name].created:
            raise VsctlError(
                f'row id "{name}" specified on "get" command was used before it was defined'
            )
        symbol = context.create_symbol(name)
        symbol.row, symbol.strong = row, True
    for word in command.arguments[2:]:
        if _is_uuid_column(word):
            command.line(row)
            continue
        argument = parse_argument(table, word)
        context.transaction.verify(table.name, row, argument.column.name)
        command.line(_get_one(context, command, table, row, argument))


def _get_one(
    context: Context, command: Command, table: TableSchema, row: str, argument: Argument
) -> str:
    column = argument.column
    data = context.get(table.name, row, column.name)
    if argument.key is None:
        return values.text(column.type, data)
    if column.type.value is None or not isinstance(data, dict):
        raise VsctlError(f"cannot specify key to get for non-map column {column.name}")
    key = values.parse_atom(column.type.key, argument.key, context.resolve)
    if key in data:
        return values.atom_text(column.type.value, data[key])
    if command.has("--if-exists"):
        return ""
    raise VsctlError(
        f'no key "{argument.key}" in {table.name} record "{command.arguments[1]}" '
        f"column {column.name}{nearest(argument.key, map(str, data))}"
    )


# ---- list, find ----


def _columns(table: TableSchema, command: Command) -> list[str]:
    listed = command.options.get("--columns")
    if listed is None:
        return ["_uuid", *sorted(table.columns)]
    words = listed.replace(",", " ").split()
    if not words:
        raise VsctlError("must specify at least one column name")
    return ["_uuid" if w.lower() == "_uuid" else find_column(table, w).name for w in words]


def need_list(schema: Schema, command: Command, needs: Needs) -> None:
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    needs.add(table.name, *(name for name in _columns(table, command) if name != "_uuid"))


def need_find(schema: Schema, command: Command, needs: Needs) -> None:
    need_list(schema, command, needs)
    table = find_table(schema, command.arguments[0])
    for word in command.arguments[1:]:
        if not _is_uuid_condition(word):
            needs.add(table.name, parse_argument(table, word, RELATIONS).column.name)


def _table(context: Context, table: TableSchema, columns: list[str], rows: list[str]) -> Table:
    def cell(row: str, name: str) -> Cell:
        if name == "_uuid":
            return UUID_TYPE, (row,)
        return table.columns[name].type, context.get(table.name, row, name)

    return Table(columns, [[cell(row, name) for name in columns] for row in rows])


def list_records(context: Context, command: Command) -> None:
    table = find_table(context.schema, command.arguments[0])
    named = command.arguments[1:]
    if named:
        must_exist = not command.has("--if-exists")
        found = [context.record(table.name, word, must_exist) for word in named]
        rows = [row for row in found if row is not None]
    else:
        rows = list(context.transaction.rows(table.name))
    command.output = _table(context, table, _columns(table, command), rows)


def find(context: Context, command: Command) -> None:
    table = find_table(context.schema, command.arguments[0])
    rows = [
        row
        for row in context.transaction.rows(table.name)
        if all(_satisfied(context, table, row, word) for word in command.arguments[1:])
    ]
    command.output = _table(context, table, _columns(table, command), rows)


def _is_uuid_condition(word: str) -> bool:
    return _is_uuid_column(values.token(word)[0])


def _satisfied(context: Context, table: TableSchema, row: str, word: str) -> bool:
    """Whether `column[:key]RELATIONvalue` holds; an absent key satisfies only a set relation."""
    if _is_uuid_condition(word):
        return _relation("=", (row,), (word.partition("=")[2].lower(),))
    argument = parse_argument(table, word, RELATIONS)
    kind = argument.column.type
    have = context.get(table.name, row, argument.column.name)
    if argument.key is None:
        if argument.operator in ("{in}", "{not-in}"):
            kind = kind.bounded(0, UNLIMITED)
        want = values.parse_datum(kind, argument.value, context.resolve)
        return _relation(argument.operator, have, want)
    if kind.value is None or not isinstance(have, dict):
        raise VsctlError(f"cannot specify key to check for non-map column {argument.column.name}")
    key = values.parse_atom(kind.key, argument.key, context.resolve)
    items = ColumnType(kind.value, None, 0, UNLIMITED)
    want = values.parse_datum(items, argument.value, context.resolve)
    if key not in have and not argument.operator.startswith("{"):
        return False
    return _relation(argument.operator, (have[key],) if key in have else (), want)


def _relation(operator: str, have: Datum, want: Datum) -> bool:
    order = values.compare(have, want)
    within, around = values.includes(have, want), values.includes(want, have)
    apart = not any(values.includes((key,), want) for key in have)
    return {
        "=": order == 0,
        "{=}": order == 0,
        "!=": order != 0,
        "{!=}": order != 0,
        "<": order < 0,
        ">": order > 0,
        "<=": order <= 0,
        ">=": order >= 0,
        "{<}": within and len(have) < len(want),
        "{>}": around and len(have) > len(want),
        "{<=}": within,
        "{in}": within,
        "{>=}": around,
        "{not-in}": apart,
    }[operator]


def need_wait_until(schema: Schema, command: Command, needs: Needs) -> None:
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    for word in command.arguments[2:]:
        if not _is_uuid_condition(word):
            needs.add(table.name, parse_argument(table, word, RELATIONS).column.name)


def wait_until(context: Context, command: Command) -> None:
    table = find_table(context.schema, command.arguments[0])
    row = context.record(table.name, command.arguments[1], must_exist=False)
    if row is None or not all(
        _satisfied(context, table, row, word) for word in command.arguments[2:]
    ):
        raise TryAgainError


# ---- set, add, remove, clear ----


def need_set(schema: Schema, command: Command, needs: Needs) -> None:
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    for word in command.arguments[2:]:
        needs.add(table.name, parse_argument(table, word, EQUALS).column.name)


def need_column(schema: Schema, command: Command, needs: Needs) -> None:
    """add and remove: one column, then values."""
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    needs.add(table.name, find_column(table, command.arguments[2]).name)


def need_clear(schema: Schema, command: Command, needs: Needs) -> None:
    table = find_table(schema, command.arguments[0])
    needs.named(table.name)
    needs.add(table.name, *(find_column(table, word).name for word in command.arguments[2:]))


def set_column(context: Context, table: TableSchema, row: str, word: str) -> None:
    """Carry out one `column[:key]=value`."""
    argument = parse_argument(table, word, EQUALS)
    column, kind = argument.column, argument.column.type
    _check_mutable(context, table, row, column)
    if argument.key is None:
        data = values.parse_datum(kind, argument.value, context.resolve)
    else:
        old = context.get(table.name, row, column.name)
        if kind.value is None or not isinstance(old, dict):
            raise VsctlError(f"cannot specify key to set for non-map column {column.name}")
        key = values.parse_atom(kind.key, argument.key, context.resolve)
        item = values.parse_atom(kind.value, argument.value, context.resolve)
        data = values.canonical({**old, key: item})
        context.transaction.verify(table.name, row, column.name)
    context.transaction.write(table.name, row, column.name, data)


def set_record(context: Context, command: Command) -> None:
    table, row = _target(context, command)
    if row is not None:
        for word in command.arguments[2:]:
            set_column(context, table, row, word)


def _target(context: Context, command: Command) -> tuple[TableSchema, str | None]:
    table = find_table(context.schema, command.arguments[0])
    must_exist = not command.has("--if-exists")
    return table, context.record(table.name, command.arguments[1], must_exist)


def add(context: Context, command: Command) -> None:
    table, row = _target(context, command)
    if row is None:
        return
    column = find_column(table, command.arguments[2])
    _check_mutable(context, table, row, column)
    data = context.get(table.name, row, column.name)
    for word in command.arguments[3:]:
        more = values.parse_datum(column.type.bounded(1, UNLIMITED), word, context.resolve)
        if isinstance(data, dict) and isinstance(more, dict):
            data = values.canonical({**more, **data})
        else:
            data = values.canonical((*data, *more))
    if len(data) > column.type.n_max:
        raise VsctlError(
            f'"add" operation would put {values.size(column.type, len(data))} in column '
            f"{column.name} of table {table.name} but the maximum number is {column.type.n_max}"
        )
    context.transaction.verify(table.name, row, column.name)
    context.transaction.write(table.name, row, column.name, data)


def remove(context: Context, command: Command) -> None:
    table, row = _target(context, command)
    if row is None:
        return
    column = find_column(table, command.arguments[2])
    _check_mutable(context, table, row, column)
    data = context.get(table.name, row, column.name)
    for word in command.arguments[3:]:
        data = _subtract(column.type, data, word, context.resolve)
    if len(data) < column.type.n_min:
        raise VsctlError(
            f'"remove" operation would put {values.size(column.type, len(data))} in column '
            f"{column.name} of table {table.name} but the minimum number is {column.type.n_min}"
        )
    context.transaction.verify(table.name, row, column.name)
    context.transaction.write(table.name, row, column.name, data)


def _subtract(kind: ColumnType, data: Datum, word: str, resolve: values.Resolve) -> Datum:
    """Without the values, pairs, or (for a map where `word` is no pair) keys that it names."""
    try:
        less = values.parse_datum(kind.bounded(1, UNLIMITED), word, resolve)
    except VsctlError:
        if not kind.is_map:
            raise
        less = values.parse_datum(ColumnType(kind.key, None, 1, UNLIMITED), word, resolve)
    if not isinstance(data, dict):
        return tuple(atom for atom in data if atom not in less)
    pairs = less if isinstance(less, dict) else {key: data.get(key) for key in less}
    return {k: v for k, v in data.items() if k not in pairs or pairs[k] != v}


def clear(context: Context, command: Command) -> None:
    table, row = _target(context, command)
    if row is None:
        return
    for word in command.arguments[2:]:
        column = find_column(table, word)
        _check_mutable(context, table, row, column)
        if column.type.n_min > 0:
            raise VsctlError(
                f'"clear" operation cannot be applied to column {column.name} of table '
                f"{table.name}, which is not allowed to be empty"
            )
        context.transaction.write(table.name, row, column.name, column.type.default)


# ---- create, destroy ----


def need_create(schema: Schema, command: Command, needs: Needs) -> None:
    find_table(schema, command.arguments[0])


def create(context: Context, command: Command) -> None:
    """Prints the provisional UUID; the session puts the real one in its place."""
    table = find_table(context.schema, command.arguments[0])
    name = command.options.get("--id")
    row: str | None = None
    if name is not None:
        symbol = context.create_symbol(name)
        symbol.strong |= table.is_root
        row = symbol.row
    elif not table.is_root:
        context.warnings.append(
            f'applying "create" command to table {table.name} without --id option will have '
            "no effect"
        )
    row = context.transaction.insert(table.name, row)
    for word in command.arguments[1:]:
        set_column(context, table, row, word)
    command.line(row)


def need_destroy(schema: Schema, command: Command, needs: Needs) -> None:
    needs.named(find_table(schema, command.arguments[0]).name)


def destroy(context: Context, command: Command) -> None:
    table = find_table(context.schema, command.arguments[0])
    named, everything = command.arguments[1:], command.has("--all")
    must_exist = not command.has("--if-exists")
    if everything and named:
        raise VsctlError("--all and records argument should not be specified together")
    if everything and not must_exist:
        raise VsctlError("--all and --if-exists should not be specified together")
    if not everything and not named:
        context.warnings.append("either --all or records argument should be specified")
    rows = (
        list(context.transaction.rows(table.name))
        if everything
        else [context.record(table.name, word, must_exist) for word in named]
    )
    for row in rows:
        if row is not None:
            context.transaction.delete(table.name, row)

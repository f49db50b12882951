# SPDX-License-Identifier: Apache-2.0
"""The values clients see: natural Python for each column type, to and from RFC 7047 JSON.

A required scalar is an int, float, bool, str or UUID; an optional one (at most one element)
is that or None; a set is a sorted tuple without duplicates; a map is a dict in key order.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeAlias, cast
from uuid import UUID

from heliograph.ovsdb.errors import ConstraintError, Json
from heliograph.ovsdb.types import Atom, BaseType, ColumnType, Datum

Scalar: TypeAlias = int | float | bool | str | UUID
Value: TypeAlias = Scalar | tuple[Scalar, ...] | dict[Scalar, Scalar] | None

__all__ = ["ConstraintError", "Scalar", "Value", "from_json", "make_uuid", "to_json", "to_python"]

# The same few thousand rows are named again and again; a UUID takes a microsecond to make.
make_uuid = functools.lru_cache(maxsize=16384)(UUID)


def to_json(column_type: ColumnType, value: Value) -> Json:
    """The <value> of RFC 7047 section 5.1 for a Python value.

    Raises MalformedError for a value of another type and ConstraintError for one that the
    schema forbids, with Open vSwitch's texts.
    """
    key, item = column_type.key, column_type.value
    if isinstance(value, Mapping):
        pairs = [[_plain(key, k), _plain(item, v)] for k, v in value.items()] if item else []
        raw: Json = ["map", pairs]
    elif isinstance(value, tuple | list | set | frozenset):
        raw = ["set", [_plain(key, atom) for atom in value]]
    elif value is None:
        raw = ["set", []]
    else:
        raw = _plain(key, value)
    return column_type.to_json(column_type.parse(raw))


def from_json(column_type: ColumnType, json: Json) -> Value:
    """The Python value of a <value>. Raises MalformedError or ConstraintError."""
    return to_python(column_type, column_type.parse(json))


def to_python(column_type: ColumnType, datum: Datum) -> Value:
    """The Python value of a datum as types.py keeps it."""
    key = column_type.key
    if isinstance(datum, dict):
        assert column_type.value is not None
        value = column_type.value
        if key.kind != "uuid" and value.kind != "uuid":
            return cast("dict[Scalar, Scalar]", dict(datum))
        return {_rich(key, k): _rich(value, v) for k, v in datum.items()}
    if column_type.n_max == 1:
        return _rich(key, datum[0]) if datum else None
    if key.kind != "uuid":
        return datum
    return tuple(make_uuid(str(atom)) for atom in datum)


def _rich(base: BaseType, atom: Atom) -> Scalar:
    return make_uuid(str(atom)) if base.kind == "uuid" else atom


def _plain(base: BaseType | None, scalar: Scalar | None) -> Json:
    if isinstance(scalar, UUID) and base is not None and base.kind == "uuid":
        return ["uuid", str(scalar)]
    return scalar

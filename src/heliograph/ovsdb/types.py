# SPDX-License-Identifier: Apache-2.0
"""Column types and the data of columns (RFC 7047 sections 3.2 and 5.1).

This is the one module that touches `ovs.db.types` and `ovs.db.data`: the official library
parses types and words constraint errors, so its texts are those users know. The data itself
is plain Python in one form for every type, since a transaction over 1,000 rows handles tens
of thousands of atoms: a set (also of one or of none) is a sorted tuple, a map is a dict with
sorted keys. A UUID atom is its lower-case text. Data is never changed in place.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import ovs.db.data
import ovs.db.error
import ovs.db.types

from heliograph.ovsdb.errors import ConstraintError, Json, MalformedError, OvsdbError

Atom: TypeAlias = int | float | bool | str
Datum: TypeAlias = tuple[Atom, ...] | dict[Atom, Atom]
NameLookup: TypeAlias = Callable[[str], str]  # the name of a new row -> its UUID

UNLIMITED = sys.maxsize
ZERO_UUID = "00000000-0000-0000-0000-000000000000"
_INT64 = (-(1 << 63), (1 << 63) - 1)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IDENTIFIER = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PYTHON_TYPES: dict[str, set[type]] = {
    "integer": {int},
    "real": {int, float},
    "boolean": {bool},
    "string": {str},
}
_DEFAULTS: dict[str, Atom] = {
    "integer": 0,
    "real": 0.0,
    "boolean": False,
    "string": "",
    "uuid": ZERO_UUID,
}


def is_uuid(text: object) -> bool:
    return isinstance(text, str) and _UUID.fullmatch(text) is not None


def is_identifier(text: object) -> bool:
    """RFC 7047 section 3.1, <id>."""
    return isinstance(text, str) and _IDENTIFIER.fullmatch(text) is not None


class BaseType:
    """The type of one atom with its constraints (RFC 7047 section 3.2, <base-type>)."""

    def __init__(self, ovs_base: Any) -> None:
        self.ovs = ovs_base
        self.kind: str = ovs_base.type.to_string()
        self.ref_table: str | None = ovs_base.ref_table_name
        self.ref_type: str | None = ovs_base.ref_type
        self.enum: frozenset[Atom] | None = (
            None if ovs_base.enum is None else frozenset(ovs_base.enum.as_list())
        )
        self.minimum: int | float | None = ovs_base.min
        self.maximum: int | float | None = ovs_base.max
        self.default: Atom = _DEFAULTS[self.kind]
        self._constrained = self.kind != "uuid" and bool(ovs_base.has_constraints())

    @property
    def strong(self) -> bool:
        return self.ref_type == "strong"

    @property
    def weak(self) -> bool:
        return self.ref_type == "weak"

    def without_constraints(self) -> BaseType:
        return BaseType(self.ovs.without_constraints())

    def atom(self, json: Json, names: NameLookup | None = None) -> Atom:
        """Parses one <atom>. Raises MalformedError or ConstraintError."""
        return self.atoms((json,), names)[0]

    def atoms(self, items: Iterable[Json], names: NameLookup | None = None) -> list[Atom]:
        """Parses many <atom>s at the speed of C where their types allow it."""
        if self.kind == "uuid":
            return [_parse_uuid(item, names) for item in items]
        found = list(items)
        if not set(map(type, found)) <= _PYTHON_TYPES[self.kind]:
            allowed = _PYTHON_TYPES[self.kind]
            wrong = next(item for item in found if type(item) not in allowed)
            raise MalformedError(f"expected {self.kind}", wrong)
        if self.kind == "integer" and found:
            for extreme in (min(found), max(found)):
                if not _INT64[0] <= extreme <= _INT64[1]:
                    raise MalformedError("expected integer", extreme)
        if self.kind == "real":  # a whole one is written without a point
            found = [float(item) for item in found]
        if self._constrained:
            self.check(found)
        return found

    def check(self, atoms: Iterable[Atom]) -> None:
        """Raises ConstraintError for the first atom out of range, length or enumeration."""
        if self.enum is not None:
            if self.enum.issuperset(atoms):
                return
        elif self.kind in ("integer", "real"):
            low = -float("inf") if self.minimum is None else self.minimum
            high = float("inf") if self.maximum is None else self.maximum
            if all(low <= atom <= high for atom in atoms):  # type: ignore[operator]
                return
        try:
            for atom in atoms:
                ovs.db.data.Atom(self.ovs.type, atom).check_constraints(self.ovs)
        except ovs.db.error.Error as fault:
            raise ConstraintError(fault.msg) from None

    def to_json(self, atom: Atom) -> Json:
        return ["uuid", atom] if self.kind == "uuid" else atom


def _parse_uuid(json: Json, names: NameLookup | None) -> str:
    # RFC 7047 section 5.1, <uuid> and <named-uuid>.
    if type(json) is list and len(json) == 2:
        kind, text = json
        if kind == "uuid" and is_uuid(text):
            return str(text).lower()
        if kind == "named-uuid" and names is not None and is_identifier(text):
            return names(text)
        if kind == "uuid" and isinstance(text, str):
            raise MalformedError(f'"{text}" is not a valid UUID', json)
    raise MalformedError('expected ["uuid", <string>]', json)


class ColumnType:
    """The type of a column (RFC 7047 section 3.2, <type>)."""

    def __init__(self, key: BaseType, value: BaseType | None, n_min: int, n_max: int) -> None:
        self.key = key
        self.value = value
        self.n_min = n_min
        self.n_max = n_max
        self.is_map = value is not None
        self.is_scalar = n_min == 1 and n_max == 1 and value is None
        self.is_optional = n_min == 0 and n_max == 1 and value is None
        self.is_composite = n_max > 1
        self.default: Datum
        if value is not None:
            self.default = {key.default: value.default} if n_min else {}
        else:
            self.default = (key.default,) if n_min else ()

    @classmethod
    def from_json(cls, json: Json) -> ColumnType:
        """Parses a <type>; raises OvsdbError."""
        try:
            parsed = ovs.db.types.Type.from_json(json)
        except ovs.db.error.Error as fault:
            raise OvsdbError(fault.tag, fault.msg, json) from None
        return cls.from_ovs(parsed)

    @classmethod
    def from_ovs(cls, parsed: Any) -> ColumnType:
        """Wraps an `ovs.db.types.Type`."""
        value = None if parsed.value is None else BaseType(parsed.value)
        return cls(BaseType(parsed.key), value, parsed.n_min, parsed.n_max)

    def bounded(self, n_min: int, n_max: int) -> ColumnType:
        """The same type with another number of elements."""
        return ColumnType(self.key, self.value, n_min, n_max)

    @functools.cached_property
    def relaxed(self) -> ColumnType:
        """The same type with any number of elements, for the differences of its data."""
        return self.bounded(0, UNLIMITED)

    def __str__(self) -> str:
        """In English, for error texts."""
        inner = ovs.db.types.Type(
            self.key.ovs, self.value.ovs if self.value else None, self.n_min, self.n_max
        )
        return str(inner.toEnglish())

    def parse(self, json: Json, names: NameLookup | None = None) -> Datum:
        """Parses a <value> (RFC 7047 section 5.1).

        `names` resolves <named-uuid>; without it they are refused.
        Raises MalformedError or ConstraintError.
        """
        if self.value is not None:
            return self._parse_map(json, self.value, names)
        if type(json) is not list or not json or json[0] != "set":
            return (self.key.atom(json, names),)
        items = self._elements(json, "set")
        atoms = self.key.atoms(items, names)
        if len(atoms) > 1:
            unique = sorted(set(atoms))
            if len(unique) != len(atoms):
                raise OvsdbError("ovsdb error", "set contains duplicate", json)
            return tuple(unique)
        return tuple(atoms)

    def _parse_map(self, json: Json, value: BaseType, names: NameLookup | None) -> Datum:
        pairs = self._elements(json, "map")
        for pair in pairs:
            if type(pair) is not list or len(pair) != 2:
                raise MalformedError("expected 2-element array", pair)
        keys = self.key.atoms([pair[0] for pair in pairs], names)
        values = value.atoms([pair[1] for pair in pairs], names)
        result = dict(zip(keys, values, strict=True))
        if len(result) != len(pairs):
            raise OvsdbError("ovsdb error", "map contains duplicate key", json)
        return sorted_map(result)

    def _elements(self, json: Json, name: str) -> list[Json]:
        if type(json) is not list or len(json) != 2 or json[0] != name or type(json[1]) is not list:
            raise MalformedError(f'expected ["{name}", <array>]', json)
        count = len(json[1])
        if not self.n_min <= count <= self.n_max:
            raise MalformedError(f"{name} must have {self._range()} members, not {count}", json)
        return json[1]

    def _range(self) -> str:
        if self.n_max == UNLIMITED:
            return f"{self.n_min} or more"
        return f"{self.n_min} to {self.n_max}"

    def check_count(self, datum: Datum) -> None:
        """Raises ConstraintError if `datum` has too few or too many elements."""
        if not self.n_min <= len(datum) <= self.n_max:
            raise ConstraintError(f"{len(datum)} elements in a {self}, not {self._range()}")

    def check(self, datum: Datum) -> None:
        """Raises ConstraintError if an atom of `datum` breaks its type's constraints."""
        self.key.check(datum)
        if self.value is not None and isinstance(datum, dict):
            self.value.check(datum.values())

    def to_json(self, datum: Datum) -> Json:
        """The <value> of `datum` (RFC 7047 section 5.1)."""
        uuid_key = self.key.kind == "uuid"
        if isinstance(datum, dict):
            assert self.value is not None
            if uuid_key or self.value.kind == "uuid":
                to_key, to_value = self.key.to_json, self.value.to_json
                return ["map", [[to_key(key), to_value(item)] for key, item in datum.items()]]
            return ["map", [[key, item] for key, item in datum.items()]]
        if len(datum) == 1:
            return ["uuid", datum[0]] if uuid_key else datum[0]
        if uuid_key:
            return ["set", [["uuid", atom] for atom in datum]]
        return ["set", list(datum)]

    def diff(self, old: Datum, new: Datum) -> Datum:
        """What turns `old` into `new`: of a set the elements in only one of them, of a map the
        pairs gone and the pairs new or changed; of any other type `new` itself.

        This is the <row-diff> of monitor_cond and of Open vSwitch's log (ovsdb-server(7)).
        """
        if not self.is_composite:
            return new
        if isinstance(old, dict) and isinstance(new, dict):
            delta = {key: value for key, value in old.items() if key not in new}
            delta.update(
                (key, value) for key, value in new.items() if key not in old or old[key] != value
            )
            return sorted_map(delta)
        return tuple(sorted(set(old) ^ set(new)))

    def apply_diff(self, old: Datum, diff: Datum) -> Datum:
        """The inverse of `diff`."""
        if not self.is_composite:
            return diff
        if isinstance(old, dict) and isinstance(diff, dict):
            result = dict(old)
            for key, value in diff.items():
                if key in result and result[key] == value:
                    del result[key]
                else:
                    result[key] = value
            return sorted_map(result)
        return tuple(sorted(set(old) ^ set(diff)))


def sorted_map(pairs: dict[Atom, Atom]) -> dict[Atom, Atom]:
    keys = list(pairs)
    ordered = sorted(keys)
    return pairs if keys == ordered else {key: pairs[key] for key in ordered}

# SPDX-License-Identifier: Apache-2.0
"""Column values as people write and read them in ovs-vsctl.

Data is that of heliograph.ovsdb.types: a sorted tuple of unique atoms for scalars, optional
values and sets alike, a dict for maps. Texts of errors are those a user of ovs-vsctl knows.
"""

import json
import re
from collections.abc import Callable, Mapping

from heliograph.cli.vsctl.errors import VsctlError
from heliograph.ovsdb.errors import ConstraintError
from heliograph.ovsdb.types import Atom, BaseType, ColumnType, Datum, is_uuid

# How "@name" becomes the UUID it stands for; told the type of the column that refers to it.
Resolve = Callable[[str, BaseType], str]

DELIMITERS = ":=, []{}!<>"
RANGE_MOST = 4096
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def size(kind: ColumnType, count: int) -> str:
    return f"{count} {'pairs' if kind.is_map else 'values'}"


def canonical(data: Datum) -> Datum:
    """Sorted and unique, as the database keeps it."""
    if isinstance(data, dict):
        return dict(sorted(data.items()))
    return tuple(sorted(set(data)))


# ---- reading ----


def token(text: str, start: int = 0) -> tuple[str, int]:
    """The token at `start` and where it ends.

    It ends at a delimiter that is neither escaped nor in double quotes; quotes stay in it, and
    so do backslashes inside them.
    """
    out: list[str] = []
    quoted = False
    at = start
    while at < len(text):
        char = text[at]
        if char == "\\":
            if at + 1 >= len(text):
                raise VsctlError(f"{text[start:]}: backslash at end of argument")
            out.append(text[at : at + 2] if quoted else text[at + 1])
            at += 2
            continue
        if not quoted and char in DELIMITERS:
            break
        if char == '"':
            quoted = not quoted
        out.append(char)
        at += 1
    if quoted:
        raise VsctlError(f"{text[start:]}: quoted string extends past end of argument")
    return "".join(out), at


def parse_atom(base: BaseType, text: str, resolve: Resolve) -> Atom:
    """One value. VsctlError for what is no such value or violates the column's constraints."""
    if base.kind == "uuid":
        return _uuid(base, text, resolve)
    return _checked(base, _PARSERS[base.kind](text))


def _checked(base: BaseType, atom: Atom) -> Atom:
    if base.enum is not None and atom not in base.enum:
        # The Python library would quote names that have digits; ovs-vsctl does not.
        allowed = ", ".join(atom_text(base, choice) for choice in sorted(base.enum))
        raise VsctlError(
            f"constraint violation: {atom_text(base, atom)} is not one of the allowed values "
            f"([{allowed}])"
        )
    try:
        base.check((atom,))
    except ConstraintError as error:
        raise VsctlError(str(error)) from error
    return atom


def _integer(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d+", text):
        raise VsctlError(f'"{text}" is not a valid integer or range')
    return int(text)


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise VsctlError(f'"{text}" is not a valid real number') from None


def _boolean(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise VsctlError(f'"{text}" is not a valid boolean (use "true" or "false")')


def _string(text: str) -> str:
    if not text:
        raise VsctlError(
            'An empty string is not valid as input; use "" to represent the empty string'
        )
    if not text.startswith('"'):
        return text
    if len(text) < 2 or not text.endswith('"'):
        raise VsctlError(f"{text}: missing quote at end of quoted string")
    try:
        return str(json.loads(text, strict=False))
    except ValueError as error:
        raise VsctlError(f"{text}: {error}") from error


def _uuid(base: BaseType, text: str, resolve: Resolve) -> str:
    if text.startswith("@"):
        return resolve(text, base)
    if not is_uuid(text):
        raise VsctlError(f'"{text}" is not a valid UUID')
    return text.lower()


_PARSERS: Mapping[str, Callable[[str], Atom]] = {
    "integer": _integer,
    "real": _real,
    "boolean": _boolean,
    "string": _string,
}


def _range(base: BaseType, text: str) -> list[Atom]:
    """`5-9` is five integers."""
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if base.kind != "integer" or not found:
        return []
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise VsctlError(f'"{text}" is not a valid range. Range end cannot be before start.')
    _checked(base, first)
    _checked(base, last)
    if last - first >= RANGE_MOST:
        raise VsctlError(
            f'Range "{first}-{last}" is too big. Maximum allowed size is {RANGE_MOST}.'
        )
    return list(range(first, last + 1))


class _DatumReader:
    """`[1, 2]`, `1 2`, `{a=b, c=d}`, `a=b,c=d`: atoms or pairs, brackets if you like."""

    def __init__(self, kind: ColumnType, text: str, resolve: Resolve) -> None:
        self._kind = kind
        self._text = text
        self._resolve = resolve
        self._at = 0
        self._keys: list[Atom] = []
        self._values: list[Atom] = []

    def read(self) -> Datum:
        opening, closing = ("{", "}") if self._kind.is_map else ("[", "]")
        self._skip_spaces()
        end = ""
        if self._here() == opening:
            end = closing
            self._at += 1
            self._skip_spaces()
        elif not self._here():
            name = "map" if self._kind.is_map else "set"
            raise VsctlError(f'use "{opening}{closing}" to specify the empty {name}')
        while self._here() and self._here() != end:
            self._element()
        if end:
            self._close(end)
        return self._counted()

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_spaces(self) -> None:
        while self._here() == " ":
            self._at += 1

    def _element(self) -> None:
        if self._here() in DELIMITERS:
            raise VsctlError(f'{self._text}: unexpected "{self._here()}" parsing {self._kind}')
        start = self._at
        word, self._at = token(self._text, self._at)
        numbers = _range(self._kind.key, word) if not self._kind.is_map else []
        self._keys += numbers or [parse_atom(self._kind.key, word, self._resolve)]
        if self._kind.value is not None:
            if self._here() != "=":
                found = f'"{self._here()}"' if self._here() else "the end"
                raise VsctlError(f'{self._text[start:]}: syntax error at {found} expecting "="')
            word, self._at = token(self._text, self._at + 1)
            self._values.append(parse_atom(self._kind.value, word, self._resolve))
        self._skip_spaces()
        if self._here() == ",":
            self._at += 1
            self._skip_spaces()

    def _close(self, end: str) -> None:
        if self._here() != end:
            raise VsctlError(f'{self._text}: missing "{end}" at end of data')
        self._at += 1
        self._skip_spaces()
        if self._here():
            raise VsctlError(f'{self._text}: trailing garbage after "{end}"')

    def _counted(self) -> Datum:
        count = len(self._keys)
        what = "pair(s)" if self._kind.is_map else "value(s)"
        if count < self._kind.n_min:
            raise VsctlError(
                f"{self._text}: {count} {what} specified but the minimum number is "
                f"{self._kind.n_min}"
            )
        if count > self._kind.n_max:
            raise VsctlError(
                f"{self._text}: {count} {what} specified but the maximum number is "
                f"{self._kind.n_max}"
            )
        if len(set(self._keys)) != count:
            twice = (
                "map contains duplicate key"
                if self._kind.is_map
                else ("set contains duplicate value")
            )
            raise VsctlError(f"{self._text}: {twice}")
        if self._kind.is_map:
            return canonical(dict(zip(self._keys, self._values, strict=True)))
        return canonical(tuple(self._keys))


def parse_datum(kind: ColumnType, text: str, resolve: Resolve) -> Datum:
    return _DatumReader(kind, text, resolve).read()


# ---- writing ----


def atom_text(base: BaseType, atom: Atom) -> str:
    if base.kind == "boolean":
        return "true" if atom else "false"
    if base.kind == "real":
        return format(atom, ".15g")
    if base.kind != "string":
        return str(atom)
    word = str(atom)
    if _PLAIN.fullmatch(word) and word not in ("true", "false") and not is_uuid(word):
        return word
    return json.dumps(word, ensure_ascii=False)


def text(kind: ColumnType, data: Datum) -> str:
    """As parse_datum reads it back."""
    if isinstance(data, dict) and kind.value is not None:
        inner = ", ".join(
            f"{atom_text(kind.key, key)}={atom_text(kind.value, item)}"
            for key, item in data.items()
        )
        return f"{{{inner}}}"
    inner = ", ".join(atom_text(kind.key, atom) for atom in data)
    return f"[{inner}]" if kind.n_max > 1 or not data else inner


def bare_text(kind: ColumnType, data: Datum) -> str:
    """Without quotes and brackets, separated by spaces."""
    if isinstance(data, dict) and kind.value is not None:
        return " ".join(
            f"{_bare(kind.key, key)}={_bare(kind.value, item)}" for key, item in data.items()
        )
    return " ".join(_bare(kind.key, atom) for atom in data)


def _bare(base: BaseType, atom: Atom) -> str:
    return str(atom) if base.kind == "string" else atom_text(base, atom)


# ---- comparing ----


def compare(a: Datum, b: Datum) -> int:
    """-1, 0 or 1: by count, then keys, then values, in order."""

    def rank(data: Datum) -> tuple[int, list[Atom], list[Atom]]:
        values = list(data.values()) if isinstance(data, dict) else []
        return len(data), list(data), values

    left, right = rank(a), rank(b)
    return (left > right) - (left < right)


def includes(small: Datum, big: Datum) -> bool:
    """Whether every element (of a map: pair) of `small` is in `big`."""
    if isinstance(small, dict) and isinstance(big, dict):
        return all(key in big and big[key] == item for key, item in small.items())
    return all(key in big for key in small)

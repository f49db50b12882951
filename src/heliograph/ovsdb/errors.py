# SPDX-License-Identifier: Apache-2.0
"""The errors of RFC 7047 as exceptions that know their own JSON form."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from heliograph.errors import HeliographError

Json: TypeAlias = Any  # whatever json.loads gives; what reads it narrows it

MAX_SYNTAX = 4000  # characters of the JSON at fault that an error quotes


class OvsdbError(HeliographError):
    """A database error (RFC 7047 section 3.1, <error>); `tag` is what programs compare."""

    def __init__(self, tag: str, details: str, syntax: Json = None) -> None:
        super().__init__(f"{tag}: {details}")
        self.tag = tag
        self.details = details
        self.syntax = syntax

    def to_json(self) -> dict[str, Json]:
        """The <error> object: `error`, `details`, and `syntax` (text of the JSON at fault)."""
        error = {"error": self.tag, "details": self.details}
        if self.syntax is not None:
            try:
                text = json.dumps(self.syntax, ensure_ascii=False, separators=(",", ":"))
            except RecursionError:
                text = "nested too deeply to be quoted"
            error["syntax"] = text if len(text) <= MAX_SYNTAX else text[:MAX_SYNTAX] + "..."
        return error


class MalformedError(OvsdbError):
    """What the client sent is not in the form the RFC asks for."""

    def __init__(self, details: str, syntax: Json = None) -> None:
        super().__init__("syntax error", details, syntax)


class ConstraintError(OvsdbError):
    """A value or a transaction breaks a constraint of the schema."""

    def __init__(self, details: str, syntax: Json = None) -> None:
        super().__init__("constraint violation", details, syntax)


class TransactionError(OvsdbError):
    """The server refused operation number `index` (from 0) of a transaction."""

    def __init__(self, tag: str, details: str, index: int) -> None:
        super().__init__(tag, details)
        self.error = tag
        self.index = index


class WireError(HeliographError):
    """The peer does not speak JSON-RPC 1.0; the connection that did it must be closed."""

# SPDX-License-Identifier: Apache-2.0
"""What ends a line of `helio vsctl` early. Exit codes are those of ovs-vsctl: 1 for any error."""

import difflib
from collections.abc import Iterable

from heliograph.errors import HeliographError


class VsctlError(HeliographError):
    exit_code = 1


class EndEarlyError(Exception):
    """`br-exists` has its answer: end with this exit code, nothing printed or changed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class TryAgainError(Exception):
    """What the line waits for is not so yet: run it again when the database has changed."""


def nearest(word: str, names: Iterable[str]) -> str:
    """` (did you mean "x"?)` where one of `names` is near enough, else nothing."""
    by_folded = {name.lower().replace("-", "_"): name for name in names}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, 1)
    return f' (did you mean "{by_folded[found[0]]}"?)' if found else ""

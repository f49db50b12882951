# SPDX-License-Identifier: Apache-2.0
"""Errors by whose fault they are; each knows the exit code it ends a command with.

Anything else that escapes is our own bug and ends in a traceback.
"""


class HeliographError(Exception):
    """A failure at run time that is nobody's bug; the text says what and how to mend it."""

    exit_code = 1


class UsageError(HeliographError):
    """The user's input is wrong: names the word, row or column at fault."""

    exit_code = 2


class AlreadyRunningError(HeliographError):
    """Another process holds what this one needs (the run directory, the socket)."""

    exit_code = 3


class EnvironmentFaultError(HeliographError):
    """The machine lacks something: names the capability, kernel version, library or device."""

    exit_code = 4

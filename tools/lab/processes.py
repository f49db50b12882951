# SPDX-License-Identifier: Apache-2.0
"""Child processes that are always ended by their own pid and reaped."""

import contextlib
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGTERM, Signals
from typing import IO

# Seconds that only bound a failure: what is well takes none of them, and a machine whose owner has
# other work may stand still for some.
PATIENCE = 60.0


class CommandError(Exception):
    """A command that had to succeed did not; the text holds what it printed."""


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    timeout: float = PATIENCE,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, at most `timeout` seconds, and collect its output as text.

    Raises CommandError if `check` and its exit code is not 0.
    """
    result = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        check=False,
        text=True,
        timeout=timeout,
        input=stdin if stdin is not None else "",
        env=env,
    )
    if check and result.returncode:
        words = " ".join(map(str, argv))
        raise CommandError(
            f"{words}: exit code {result.returncode}\n{result.stdout}{result.stderr}".rstrip()
        )
    return result


def answers(path: Path) -> bool:
    """Whether a server listens on the Unix socket `path`.

    The file is there before: a server that has bound its socket and does not listen yet refuses
    whoever connects.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Process:
    """A running command. Its standard error goes to `log`, its standard output to `out`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        out: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """With `out` the standard output goes to that file, otherwise `wait_for_line` reads it."""
        self.argv = [str(word) for word in argv]
        self.log = log
        with contextlib.ExitStack() as files:
            errors = files.enter_context(log.open("ab"))
            target: int | IO[bytes] = subprocess.PIPE
            if out is not None:
                target = files.enter_context(out.open("wb"))
            self._popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=target, stderr=errors, env=env
            )
        self.pid = self._popen.pid
        self._output = b""

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        return self._popen.poll()

    def wait_for_line(self, wanted: str, timeout: float = PATIENCE) -> None:
        """Wait until it prints the line `wanted` on its standard output.

        Raises CommandError, with the log, when it ends first or `timeout` seconds pass.
        """
        assert self._popen.stdout is not None, "its output goes to a file"
        deadline = time.monotonic() + timeout
        while wanted.encode() not in self._output.split(b"\n")[:-1]:
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self._popen.stdout], [], [], left)[0]
            chunk = self._popen.stdout.read1(65536) if readable else b""  # type: ignore[attr-defined]
            if not chunk:
                what = "ended without" if readable else f"took longer than {timeout:.0f} s to print"
                raise CommandError(f"{self.argv} {what} {wanted!r}; its log:\n{self.log_text()}")
            self._output += chunk

    def wait_for_log(self, wanted: str, timeout: float = PATIENCE) -> None:
        """Wait until its standard error contains `wanted`; raises CommandError as above."""
        deadline = time.monotonic() + timeout
        while wanted not in self.log_text():
            if not self.running or time.monotonic() > deadline:
                raise CommandError(
                    f"{self.argv} did not say {wanted!r}; its log:\n{self.log_text()}"
                )
            time.sleep(0.005)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end, return its exit code. Raises subprocess.TimeoutExpired."""
        return self._popen.wait(timeout)

    def signal(self, number: Signals) -> None:
        """Send a signal; nothing happens if it has already ended (never to a reused pid)."""
        self._popen.send_signal(number)

    def stop(self, number: Signals = SIGTERM, timeout: float = PATIENCE) -> int:
        """Ask it to end, insist with SIGKILL after `timeout` seconds, reap, return exit code."""
        self.signal(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self.wait()
        finally:
            if self._popen.stdout is not None:
                self._popen.stdout.close()


def eventually(
    condition: Callable[[], bool], timeout: float = PATIENCE, *, interval: float = 0.05
) -> bool:
    """Whether a condition comes true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True

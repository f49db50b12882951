# SPDX-License-Identifier: Apache-2.0
"""`helio run`: the supervisor of the database and the switch.

It checks the machine, takes the run directory, starts the database, then the switch, and
starts again what dies. It imports neither asyncio nor what the children are made of.
"""

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliograph.cli import environment, rundir
from heliograph.errors import AlreadyRunningError, HeliographError
from heliograph.log import Chatter

LOG = logging.getLogger(__name__)
OVS_SOCKET = Path("/var/run/openvswitch/db.sock")
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 5.0
# A child that lived this long did start: the next death begins with the short wait again.
SETTLED = 10.0
SWITCH_PATIENCE, DATABASE_PATIENCE = 30.0, 10.0
PR_SET_PDEATHSIG = 1
# Exit codes that starting again cannot mend (errors.py): someone else's lock, the machine.
HOPELESS = (3, 4)
# libc is looked up before any fork: the child may only make async-signal-safe calls.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl
_PRCTL.argtypes = [ctypes.c_int, ctypes.c_ulong]
_PRCTL.restype = ctypes.c_int


@dataclass(frozen=True)
class Settings:
    rundir: Path
    dbfile: Path | None  # None: in memory, and the data plane goes on exit
    ovs: bool
    log_level: str
    log_json: bool


class Child:
    """One process and when to start it again. Times are monotonic seconds."""

    def __init__(
        self, name: str, command: Sequence[str], lock: int, patience: float, heard: bool
    ) -> None:
        """`heard`: its stdout is a pipe to us; else whatever it prints there goes to stderr."""
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at: float | None = None
        self._command = command
        self._lock = lock
        self._patience = patience
        self._heard = heard
        self._started = 0.0
        self._backoff = BACKOFF_FIRST

    def start(self, now: float) -> None:
        parent = os.getpid()

        def die_with_parent() -> None:
            _PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)

        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._heard else 2,
            pass_fds=(self._lock,),
            process_group=0,  # Ctrl-C reaches the supervisor alone, which stops them in order
            preexec_fn=die_with_parent,  # noqa: PLW1509  (no threads here)
        )
        self._started, self.start_at = now, None
        LOG.debug("started %s, process %d", self.name, self.process.pid)

    def reap(self, now: float) -> int | None:
        """The exit code, once, if it has ended since; then `start_at` says when to start again."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self._close()
        if now - self._started >= SETTLED:
            self._backoff = BACKOFF_FIRST
        self.start_at = now + self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_LAST)
        return code

    def stop(self) -> None:
        """SIGTERM, patience, SIGKILL."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(self._patience)
        except subprocess.TimeoutExpired:
            LOG.error("%s did not stop within %.0f s: killed", self.name, self._patience)
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None


def _children(settings: Settings, lock: int) -> tuple[Child, Child]:
    common = ["--rundir", str(settings.rundir), "--log-level", settings.log_level]
    common += ["--log-json"] if settings.log_json else []
    ephemeral = ["--ephemeral"] if settings.dbfile is None else []
    store = ephemeral or ["--dbfile", str(settings.dbfile)]
    also = ["--also", str(OVS_SOCKET)] if settings.ovs else []
    remote = ["--db", f"unix:{settings.rundir}/db.sock"]
    helio = [sys.executable, "-m", "heliograph.cli.main"]
    database = [*helio, "db", *common, *store, *also]
    switch = [*helio, "switch", *common, *remote, *ephemeral]
    return (
        Child("database", database, lock, DATABASE_PATIENCE, heard=False),
        Child("switch", switch, lock, SWITCH_PATIENCE, heard=True),
    )


class Supervisor:
    """The two children from first start to exit. Takes over the signals of the process."""

    def __init__(self, database: Child, switch: Child, db_socket: Path) -> None:
        self._database = database
        self._switch = switch
        self._socket = db_socket
        self._answered = False  # the database, once
        self._ready = False  # the switch, once
        self._stopping = False
        self._chatter = Chatter()
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def run(self) -> int:
        """Until a signal: 0. A child that cannot start at all ends it with that child's code."""
        self._database.start(time.monotonic())
        try:
            while not self._stopping:
                code = self._step(time.monotonic())
                if code is not None:
                    return code
            return 0
        finally:
            self._switch.stop()
            self._database.stop()

    def _step(self, now: float) -> int | None:
        """Reap, start, wait for the next event; an exit code ends the run."""
        for child, started in ((self._database, self._answered), (self._switch, self._ready)):
            code = child.reap(now)
            if code is None:
                continue
            # Before its first start succeeded, a database that fails does so for its file.
            if not started and (code in HOPELESS or (child is self._database and code > 0)):
                return code
            times = self._chatter.repeated((child.name, code), now)
            if times:
                count = f" ({times} times)" if times > 1 else ""
                LOG.error("the %s ended with %s%s: started again", child.name, _spoken(code), count)
        if not self._answered and _answers(self._socket):
            self._answered = True
            self._switch.start_at = now
        for child in (self._database, self._switch):
            if child.start_at is not None and now >= child.start_at:
                child.start(now)
        self._wait(now)
        return None

    def _wait(self, now: float) -> None:
        waits = [c.start_at - now for c in (self._database, self._switch) if c.start_at]
        waits += [] if self._answered else [0.02]
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        words = self._switch.process.stdout if self._switch.process else None
        if words is not None and not self._ready:
            poll.register(words.fileno(), select.POLLIN)
        events = dict(poll.poll(max(0.0, min(waits)) * 1000 if waits else None))
        if self._wakeup in events:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
        if (
            words is not None
            and events.get(words.fileno(), 0) & select.POLLIN
            and words.readline().strip() == b"ready"
        ):
            self._ready = True
            print("ready", flush=True)


def _spoken(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _answers(path: Path) -> bool:
    """Whether a server listens on `path`; design.md: db.sock appears only when it answers."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def run(settings: Settings) -> int:
    """The whole of `helio run`; returns the exit code. Leaves nothing half-made when it fails."""
    environment.check(settings.rundir, ephemeral=settings.dbfile is None)
    if settings.ovs and _answers(OVS_SOCKET):
        raise AlreadyRunningError(
            f"{OVS_SOCKET} is in use by another database server: stop it, or leave --ovs out"
        )
    made = rundir.Made()
    lock: int | None = None
    code = 1
    try:
        made.directory(settings.rundir, rundir.MODE)
        lock = rundir.lock(settings.rundir, made)
        db_socket = settings.rundir / "db.sock"
        if _answers(db_socket):  # of ours nobody can be alive: each holds the lock
            raise AlreadyRunningError(
                f"{db_socket} is in use by another database server: stop it, or give this one "
                "another --rundir"
            )
        if settings.dbfile is not None:
            made.directory(settings.dbfile.parent, 0o750)
        if settings.ovs:
            made.directory(OVS_SOCKET.parent, 0o755)
        database, switch = _children(settings, lock)
        code = Supervisor(database, switch, db_socket).run()
        return code
    except HeliographError as error:
        code = error.exit_code
        raise
    finally:
        if code or settings.dbfile is None:
            made.take_back()
        if lock is not None:
            os.close(lock)

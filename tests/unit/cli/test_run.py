# SPDX-License-Identifier: Apache-2.0
"""The supervisor, with scripts in the place of the database and the switch."""

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliograph.cli import environment, main, run, rundir
from heliograph.errors import EnvironmentFaultError

PATIENCE = 60.0
# What the scripts of both children begin with: say what happens, end on SIGTERM.
PRELUDE = """
import os, signal, socket, sys, time
def say(word):
    with open("events", "a") as events:
        print(word, os.getpid(), file=events)
def end(number, frame):
    say(NAME + " ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say(NAME + " started")
"""
LISTEN = 's = socket.socket(socket.AF_UNIX); s.bind("db.sock"); s.listen()\n'
READY = 'print("ready", flush=True)\n'
FOREVER = "while True: time.sleep(60)\n"
DRIVER = """
import sys
from pathlib import Path
from heliograph.cli import run, rundir
lock = rundir.lock(Path("."), rundir.Made())
def child(name, heard):
    return run.Child(name, [sys.executable, "-S", "-E", name + ".py"], lock, 5.0, heard)
heavy = {"asyncio", "pyroute2", "ovs"} & set(sys.modules)
assert not heavy, heavy
sys.exit(run.Supervisor(child("db", False), child("switch", True), Path("db.sock")).run())
"""


class Scene:
    """A run directory with the two scripts, and a supervisor of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None

    def start(self, database: str, switch: str) -> "subprocess.Popen[str]":
        for name, body in (("db", database), ("switch", switch)):
            script = PRELUDE.replace("NAME", repr(name)) + textwrap.dedent(body)
            (self.directory / f"{name}.py").write_text(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def events(self) -> list[str]:
        path = self.directory / "events"
        return path.read_text().splitlines() if path.exists() else []

    def said(self) -> list[str]:
        """The events without the process numbers."""
        return [event.rpartition(" ")[0] for event in self.events()]

    def pids(self) -> set[int]:
        return {int(event.rpartition(" ")[2]) for event in self.events()}


def wait_until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    if scene.process is not None:
        scene.process.kill()
        scene.process.wait(PATIENCE)
        try:
            wait_until(lambda: not any(map(alive, scene.pids())))
        finally:
            for pid in filter(alive, scene.pids()):
                os.kill(pid, signal.SIGKILL)
            scene.process.communicate(timeout=PATIENCE)


def test_database_then_switch_then_ready_and_back(scene: Scene) -> None:
    process = scene.start("time.sleep(0.1)\n" + LISTEN + FOREVER, READY + FOREVER)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest) == (0, "")
    assert scene.said() == ["db started", "switch started", "switch ended", "db ended"]


def test_a_dead_child_is_started_again_and_ready_is_said_once(scene: Scene) -> None:
    process = scene.start(LISTEN + FOREVER, READY + FOREVER)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    switch = int(scene.events()[1].rpartition(" ")[2])
    os.kill(switch, signal.SIGKILL)
    wait_until(lambda: scene.said().count("switch started") == 2)
    process.send_signal(signal.SIGINT)
    rest, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest) == (0, "")
    assert "the switch ended with SIGKILL: started again" in log


def test_children_die_with_a_killed_supervisor(scene: Scene) -> None:
    process = scene.start(LISTEN + FOREVER, READY + FOREVER)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    wait_until(lambda: not any(map(alive, scene.pids())))
    assert {"switch ended", "db ended"} <= set(scene.said())


@pytest.mark.parametrize("code", [3, 4])
def test_a_child_that_cannot_start_ends_the_run_with_its_code(scene: Scene, code: int) -> None:
    process = scene.start(LISTEN + FOREVER, f"sys.exit({code})\n")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert scene.said() == ["db started", "switch started", "db ended"]


def test_a_database_that_never_answered_is_not_started_again(scene: Scene) -> None:
    process = scene.start("sys.exit(1)\n", READY + FOREVER)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert scene.said() == ["db started"]


def test_a_switch_that_fails_otherwise_is_started_again_later_and_later(scene: Scene) -> None:
    process = scene.start(LISTEN + FOREVER, 'say(f"at {time.monotonic()}")\nsys.exit(1)\n')
    wait_until(lambda: scene.said().count("switch started") == 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    times = [float(text.split()[1]) for text in scene.said() if text.startswith("at ")]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    for wait, least in zip(waits, (0.1, 0.2), strict=True):
        assert least <= wait < least + 30


def fits(rundir: Path, ephemeral: bool) -> None:
    """The machine has everything."""


def lacks(rundir: Path, ephemeral: bool) -> None:
    raise EnvironmentFaultError("missing CAP_BPF")


def test_nothing_is_made_where_the_machine_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "check", lacks)
    assert main.main(["run", f"--rundir={tmp_path}/run", f"--dbfile={tmp_path}/db/conf.db"]) == 4
    assert capsys.readouterr().err == "helio: missing CAP_BPF\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_failed_start_made_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "check", fits)
    (tmp_path / "file").touch()
    words = ["run", f"--rundir={tmp_path}/a/run", f"--dbfile={tmp_path}/file/conf.db"]
    assert main.main(words) == 4
    assert f"{tmp_path}/file is not a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_two_runs_on_one_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "check", fits)
    holder = rundir.lock(tmp_path, rundir.Made())
    try:
        assert main.main(["run", f"--rundir={tmp_path}", "--ephemeral"]) == 3
    finally:
        os.close(holder)
    assert f"held by process {os.getpid()}:" in capsys.readouterr().err


def test_a_taken_ovs_socket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "check", fits)
    monkeypatch.setattr(run, "OVS_SOCKET", tmp_path / "db.sock")
    monkeypatch.setattr(run, "_answers", lambda path: path == tmp_path / "db.sock")
    assert main.main(["run", f"--rundir={tmp_path}/run", "--ephemeral", "--ovs"]) == 3
    assert f"{tmp_path}/db.sock is in use" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

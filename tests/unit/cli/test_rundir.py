# SPDX-License-Identifier: Apache-2.0
"""The run directory's lock and what is taken back."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.cli import rundir
from heliograph.errors import AlreadyRunningError, EnvironmentFaultError


def test_directories_are_made_with_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        rundir.Made().directory(tmp_path / "a/b", rundir.MODE)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o750


def test_what_was_made_is_taken_back_but_not_what_others_use(tmp_path: Path) -> None:
    made = rundir.Made()
    made.directory(tmp_path / "a/b", rundir.MODE)
    made.directory(tmp_path / "c", rundir.MODE)
    (tmp_path / "c/theirs").touch()
    made.take_back()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["c", "theirs"]


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    first = rundir.lock(tmp_path, rundir.Made())
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(AlreadyRunningError, match=f"held by process {os.getpid()}: stop"):
        rundir.lock(tmp_path, rundir.Made())
    os.close(first)
    os.close(rundir.lock(tmp_path, rundir.Made()))


def test_it_waits_for_the_children_of_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    first = rundir.lock(tmp_path, rundir.Made())
    orphan = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(0.3)"], pass_fds=(first,)
    )
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait(60)
    os.pwrite(first, f"{gone.pid}\n".encode(), 0)
    os.ftruncate(first, len(f"{gone.pid}\n"))
    os.close(first)
    try:
        os.close(rundir.lock(tmp_path, rundir.Made()))
        assert orphan.poll() == 0
    finally:
        orphan.wait(60)


def test_unheld_keeps_others_out_meanwhile_and_leaves_no_trace(tmp_path: Path) -> None:
    with rundir.unheld(tmp_path), pytest.raises(AlreadyRunningError):
        rundir.lock(tmp_path, rundir.Made())
    assert list(tmp_path.iterdir()) == []
    with rundir.unheld(tmp_path / "never"):
        pass
    assert not (tmp_path / "never").exists()


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(EnvironmentFaultError, match="is not a directory"):
        rundir.Made().directory(tmp_path / "x", rundir.MODE)

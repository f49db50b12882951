# SPDX-License-Identifier: Apache-2.0
"""The words of `helio`, exit codes, and what a process does not import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliograph.cli import rundir
from heliograph.cli.main import main


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run", "--zork"], "unrecognized arguments: --zork"),
        (["run", "--ephemeral", "--dbfile=x"], "not allowed with argument"),
        (["show", "--rundir"], "expected one argument"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("helio: ") and error in text and text.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("helio ")


def test_teardown_refuses_while_the_switch_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rundir.unheld(tmp_path):
        assert main(["teardown", f"--rundir={tmp_path}"]) == 3
    assert "is held by process" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error_of_ours() -> None:
    command = [sys.executable, "-m", "heliograph.cli.main", "vsctl", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        result = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        ("heliograph.cli.main", "asyncio pyroute2 ovs rich heliograph.ovsdb heliograph.switch"),
        ("heliograph.cli.run", "asyncio pyroute2 ovs rich heliograph.ovsdb heliograph.switch"),
        ("heliograph.cli.vsctl.session", "pyroute2 rich heliograph.kernel heliograph.switch"),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, foreign: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({foreign.split()}) & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "\n"

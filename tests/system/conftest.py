# SPDX-License-Identifier: Apache-2.0
"""What a system test is built of.

    def test_something(switch, ovs, guest):
        ovs.vsctl("add-br br0")
        ...

Everything lives in namespaces that the `lab` of the test removes, whatever happens. A test
that leaves a process, mount, namespace or device behind is an error of that test.
"""

from collections.abc import Callable, Iterator

import pytest
from tests.system.site import Site
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab, leftovers, sweep
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import run


def _our_devices() -> set[str]:
    """Devices in the namespace of the tests that are named as the switch names its own."""
    lines = run(["ip", "-o", "link", "show"]).stdout.splitlines()
    names = {line.split()[1].split("@")[0].rstrip(":") for line in lines}
    return {name for name in names if name.startswith("hg")}


@pytest.fixture(scope="session", autouse=True)
def tokens() -> Iterator[list[str]]:
    """The tokens of all labs of this process; fails at its end if something of them is left."""
    sweep()
    before = _our_devices()
    used: list[str] = []
    yield used
    left = [what for token in used for what in leftovers(token)]
    left += [f"device {name}" for name in _our_devices() - before]
    assert not left, f"the tests left behind: {left}"


@pytest.fixture
def lab(tokens: list[str]) -> Iterator[Lab]:
    """Namespaces, processes and directories of one test."""
    made = Lab()
    tokens.append(made.token)
    with made:
        yield made
        for process in made.processes:  # pytest shows it when the test fails
            if text := process.log_text():
                print(f"--- {' '.join(process.argv)}\n{text}")


@pytest.fixture
def switch(lab: Lab) -> Heliograph:
    """A running Heliograph with an empty database, in a namespace of its own (switch.host)."""
    made = Heliograph(lab)
    made.start()
    return made


@pytest.fixture
def ovs(switch: Heliograph) -> Tools:
    """The real ovs-* tools pointed at `switch` by OVS_RUNDIR."""
    return Tools(switch.rundir)


@pytest.fixture
def guest(lab: Lab) -> Callable[[str], Namespace]:
    """Makes a guest's namespace: guest("ns1")."""
    return lab.namespace


@pytest.fixture
def site(lab: Lab, switch: Heliograph, ovs: Tools) -> Site:
    """Two bridges with two silent guests each."""
    return Site.build(lab, switch, ovs)

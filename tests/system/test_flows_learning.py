# SPDX-License-Identifier: Apache-2.0
"""Controllers that others have made decide what a bridge does: Open vSwitch's test controller, and
os-ken with the learning switches that come with it.
"""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import pytest
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import UNPACKED, Tools, environment, program
from tools.lab.processes import Process, eventually

LISTEN, CALL = "ptcp:6653:127.0.0.1", "tcp:127.0.0.1:6653"
OS_KEN = UNPACKED.with_name("os-ken") / "bin/python"
# That release wants, for its REST server, what releases of eventlet for this Python do not have.
OS_KEN_MANAGER = (
    "import eventlet.wsgi; eventlet.wsgi.ALREADY_HANDLED = None; "
    "from os_ken.cmd import manager; manager.main()"
)
NORMAL, IDLE = "priority=0 actions=NORMAL", "idle_timeout=2,"


class Site:
    """A switch, controllers in its namespace, and bridges with two guests each."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch = Heliograph(lab)
        self.switch.start()
        self.tools = Tools(self.switch.rundir)
        self._bridges: list[Bridge] = []
        self._count = 0

    def bridge(self) -> "Bridge":
        self._count += 1
        self._bridges.append(Bridge(self, self._count))
        return self._bridges[-1]

    def clear(self) -> None:
        self.tools.vsctl(" -- ".join(f"del-br {bridge.name}" for bridge in self._bridges))
        self._bridges.clear()

    def path(self, target: str) -> str:
        return target.format(rundir=self.switch.rundir)

    def start(self, *words: str) -> "Controller":
        directory = self.lab.path("controllers")
        directory.mkdir(exist_ok=True)
        return Controller(self.lab.start(self.switch.host, *words, env=environment(directory)))

    def start_stock(self, method: str, *options: str) -> "Controller":
        """ovs-testcontroller."""
        words = str(program("ovs-testcontroller")), "-vfile:off", "-vsyslog:off", *options
        return self.start(*words, self.path(method))

    def start_os_ken(self, application: str) -> "Controller":
        assert OS_KEN.exists(), f"{OS_KEN} is not there; `make dev` installs os-ken"
        words = str(OS_KEN), "-W", "ignore", "-c", OS_KEN_MANAGER, "--verbose"
        return self.start(*words, "--ofp-listen-host", "127.0.0.1", application)

    def is_listened(self) -> bool:
        """Whether there is who to call: the switch tries again after a second only."""
        return bool(self.switch.host.run("ss", "-Hltn", "sport = 6653").stdout)


@dataclass
class Controller:
    process: Process

    def close(self) -> None:
        self.process.stop(signal.SIGKILL)

    def freeze(self) -> None:
        """From here on it neither reads nor writes."""
        self.process.signal(signal.SIGSTOP)

    @property
    def log(self) -> str:
        return self.process.log_text()


class Bridge:
    """brN; its ports 1 and 2 are guests with the addresses 10.N.0.1 and 10.N.0.2."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number, self.name = site, number, f"br{number}"
        ports = {guest: f"tap{number}{guest}" for guest in (1, 2)}
        words = [f"add-br {self.name} -- set bridge {self.name} fail_mode=secure"]
        for guest, port in ports.items():
            words.append(f"add-port {self.name} {port}")
            words.append(f"set interface {port} type=internal ofport_request={guest}")
        site.tools.vsctl(" -- ".join(words))
        self.guests: list[Namespace] = []
        for guest, port in ports.items():
            namespace = site.lab.namespace(port)
            namespace.set_sysctl("ipv6/conf/default/disable_ipv6", "1")
            site.switch.move(port, namespace, f"10.{number}.0.{guest}/24")
            self.guests.append(namespace)

    def control(self, target: str, settings: str = "") -> None:
        """Its one row of Controller, whose switch tries again quickly."""
        set_row = f"set controller {self.name} max_backoff=1000 {settings}"
        words = f"set-controller {self.name} {self.site.path(target)} -- {set_row}"
        self.site.tools.vsctl(words)

    def column(self, name: str) -> str:
        """Of that row."""
        return self.site.tools.vsctl(f"get controller {self.name} {name}").strip('"')

    def says(self, connected: str, state: str) -> bool:
        """Whether the row says so."""
        words = f"get controller {self.name} is_connected status"
        is_connected, status = self.site.tools.vsctl(words).splitlines()
        return is_connected == connected and (state in status if state else status == "{}")

    def ping(self, count: int = 2) -> int:
        return self.guests[0].ping(f"10.{self.number}.0.2", count)

    def flows(self) -> list[str]:
        tools = self.site.tools
        shown = tools.run("ovs-ofctl", "-O", "OpenFlow10,OpenFlow14", "dump-flows", self.name)
        return [line.strip() for line in shown.stdout.splitlines() if "actions=" in line]

    def has(self, words: str) -> bool:
        """Whether there is a flow whose line has these words."""
        return any(words in line for line in self.flows())

    def is_taught(self, words: str) -> bool:
        """Whether its guests reach each other, and that has left such a flow."""
        return self.ping() == 2 and self.has(words)

    def packets(self, pattern: str) -> int:
        """How many frames the flow has had that looks so, the only one."""
        found = [line for line in self.flows() if re.search(pattern, line)]
        assert len(found) == 1, self.flows()
        return int(found[0].split("n_packets=")[1].split(",")[0])


@pytest.fixture(scope="module")
def shared(tokens: list[str]) -> Iterator[Site]:
    with Lab() as lab:
        tokens.append(lab.token)
        made = Site(lab)
        yield made
        log = made.switch.process.log_text()
        print(log)
        assert "Traceback" not in log


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """Each test has bridges of its own; what they listen on and call ends with them."""
    yield shared
    shared.clear()


def check_learned(bridge: Bridge, controller: Controller, kind: str = "") -> None:
    """There are flows from each guest to the other, and frames take them: the controller is as
    good as gone."""
    patterns = [
        f"{kind},in_port={here},.*dl_dst=.*actions=output:{there}$"
        for here, there in ((1, 2), (2, 1))
    ]
    before = [bridge.packets(pattern) for pattern in patterns]
    controller.freeze()
    assert bridge.ping() == 2
    after = [bridge.packets(pattern) for pattern in patterns]
    assert after == [count + 2 for count in before]


@pytest.mark.parametrize(
    ("method", "target", "version"),
    [
        (LISTEN, CALL, "OpenFlow10"),
        ("punix:{rundir}/learning", "unix:{rundir}/learning", "OpenFlow13"),
    ],
)
def test_stock_controller_is_called(site: Site, method: str, target: str, version: str) -> None:
    bridge = site.bridge()
    with closing(site.start_stock(method, "-O", version)) as controller:
        bridge.control(target)
        assert eventually(lambda: bridge.says("true", "state=ACTIVE")), controller.log
        assert bridge.column("role") == "other"
        assert bridge.ping() == 2
        check_learned(bridge, controller, "icmp")


@pytest.mark.parametrize(
    ("method", "target", "version"),
    [
        (CALL, LISTEN, "OpenFlow10"),
        ("unix:{rundir}/BRIDGE.learning", "punix:{rundir}/BRIDGE.learning", "OpenFlow14"),
    ],
)
def test_stock_controller_calls(site: Site, method: str, target: str, version: str) -> None:
    """It gets what no flow matches, though it decides nothing for the bridge (rule 68)."""
    bridge = site.bridge()
    bridge.control(target.replace("BRIDGE", bridge.name))
    assert eventually(lambda: bridge.says("false", "")), bridge.column("status")
    method = method.replace("BRIDGE", bridge.name)
    with closing(site.start_stock(method, "-O", version)) as controller:
        assert eventually(lambda: bridge.says("true", "")), controller.log
        assert bridge.ping() == 2
        check_learned(bridge, controller, "icmp")


def test_controller_dies_and_comes_back(site: Site) -> None:
    """Rule 68: after three probes without it, a standalone bridge forwards by itself, a secure one
    does not; neither does so any longer when it is back."""
    alone, closed = site.bridge(), site.bridge()
    site.tools.vsctl(f"set bridge {alone.name} fail_mode=standalone")
    version = "-O", "OpenFlow10"  # of later ones it puts a flow of its own in NORMAL's place
    with closing(site.start_stock(LISTEN, *version, "--max-idle=2")) as controller:
        for bridge in alone, closed:
            bridge.control(CALL, "inactivity_probe=1000")
        for bridge in alone, closed:
            assert eventually(partial(bridge.says, "true", "state=ACTIVE")), controller.log
            assert eventually(partial(bridge.is_taught, IDLE))
    died = time.monotonic()
    for bridge in alone, closed:
        assert eventually(partial(bridge.says, "false", "state=BACKOFF"))
        assert int(bridge.column("status:sec_since_disconnect")) < 60
    assert eventually(lambda: closed.flows() == []), "the time of idle flows is over"
    assert eventually(lambda: alone.has(NORMAL)), alone.flows()
    assert time.monotonic() - died >= 3
    assert len(alone.flows()) == 1
    assert alone.ping() == 2
    assert closed.ping(1) == 0
    with closing(site.start_stock(LISTEN, *version)) as controller:
        for bridge in alone, closed:
            assert eventually(partial(bridge.says, "true", "state=ACTIVE")), controller.log
            assert eventually(lambda: not alone.has(NORMAL))
            assert bridge.ping() == 2
        check_learned(closed, controller, "icmp")


@pytest.mark.parametrize("version", [13, 14, 15])
def test_os_ken(site: Site, version: int) -> None:
    with closing(site.start_os_ken(f"os_ken.app.simple_switch_{version}")) as controller:
        bridge = site.bridge()
        assert eventually(site.is_listened), controller.log
        bridge.control(CALL)
        assert eventually(lambda: bridge.says("true", "state=ACTIVE")), controller.log
        miss = "priority=0 actions=CONTROLLER:65535"
        assert eventually(lambda: bridge.has(miss)), controller.log
        assert bridge.ping() == 2
        assert bridge.packets(miss) >= 2, "the frames of both guests came to it"
        check_learned(bridge, controller, "priority=1")
        assert "Traceback" not in controller.log
        assert "OFPErrorMsg(" not in controller.log, "the switch refused something"

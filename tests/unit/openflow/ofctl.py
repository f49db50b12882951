# SPDX-License-Identifier: Apache-2.0
"""The real ovs-ofctl, as far end and as oracle: a switch for it to talk to, made of the codec."""

import contextlib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tools.lab.openvswitch import program

from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.codec import Framer, decode, encode, refuse
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.message import Message

NAMES = {1: "OpenFlow10", 4: "OpenFlow13", 5: "OpenFlow14", 6: "OpenFlow15"}
PORTS = (
    m.PortDesc(number=1, name="p1", address=0x020000000001, current=m.PortFeatures(0x2820)),
    m.PortDesc(number=0xFFFE, name="br0", address=2, state=m.PortState.LINK_DOWN),
)


def printed(data: bytes) -> str:
    """What `ovs-ofctl ofp-parse` makes of messages one after the other."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        words = [str(program("ovs-ofctl")), "ofp-parse", file.name]
        run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return run.stdout + run.stderr


class Switch:
    """Answers every request; flows and groups are added and never change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flows: list[f.FlowStats] = []
        self.groups: list[f.GroupDesc] = []
        self.received: list[Message] = []
        self.changed: list[Message] = []  # did not come back equal from being written and read
        self._version = 1
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        accepting = threading.Thread(target=self._accept)
        accepting.start()
        self._threads.append(accepting)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def ofctl(self, version: int, *words: str, stdin: str = "") -> str:
        """Output of `ovs-ofctl -O VERSION words[0] SWITCH words[1:]`, errors too."""
        self._version = version
        program_words = [str(program("ovs-ofctl")), "-O", NAMES[version], "--timeout=60"]
        run = subprocess.run(
            [*program_words, words[0], f"unix:{self.path}", *words[1:]],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=70,
            check=False,
        )
        return (run.stdout + run.stderr).strip()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        version, framer, table_ids = self._version, Framer(), False
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(encode(m.Hello(frozenset(range(1, version + 1))), version))
            while data := connection.recv(65536):
                framer.feed(data)
                while frame := framer.next():
                    try:
                        message = decode(frame, table_ids=table_ids)
                    except OpenFlowError as error:
                        connection.sendall(refuse(error, frame))
                        continue
                    self._note(message, version, table_ids=table_ids)
                    if isinstance(message, m.FlowModTableId):
                        table_ids = message.enable
                    reply = self._reply(message)
                    if reply is not None:
                        connection.sendall(encode(reply, version, frame.xid))

    def _note(self, message: Message, version: int, *, table_ids: bool) -> None:
        self.received.append(message)
        if not isinstance(message, m.Hello | m.BundleAdd):
            framer = Framer()
            framer.feed(encode(message, version))
            frame = framer.next()
            assert frame
            if decode(frame, table_ids=table_ids) != message:
                self.changed.append(message)

    def _reply(self, message: Message) -> Message | None:
        match message:
            case m.EchoRequest(data):
                return m.EchoReply(data)
            case m.FeaturesRequest():
                return m.FeaturesReply(
                    datapath_id=0x1234,
                    tables=64,
                    capabilities=m.Capabilities(0xEF),
                    actions=0xFFF,
                    ports=PORTS,
                )
            case m.GetConfigRequest():
                return m.GetConfigReply(0, 128)
            case m.BarrierRequest():
                return m.BarrierReply()
            case m.QueueConfigRequest(port):
                return m.QueueConfigReply(port)
            case m.BundleControl(bundle_id, action, flags):
                return m.BundleControl(bundle_id, m.BundleAction(action + 1), flags)
            case m.BundleAdd():
                return self._reply(message.message)
            case f.FlowMod():
                self._add(message)
                return None
            case f.GroupMod(group_id=group_id, type=kind):
                entry = f.GroupDesc(group_id, kind, message.buckets, message.selection)
                self.groups.append(entry)
                return None
        return self._stats(message)

    def _add(self, mod: f.FlowMod) -> None:
        if mod.command != f.FlowCommand.ADD:
            return
        self.flows.append(
            f.FlowStats(
                match=mod.match,
                actions=mod.actions,
                table_id=0 if mod.table_id == 0xFF else mod.table_id,
                priority=mod.priority,
                cookie=mod.cookie or 0,
                duration_ns=1_500_000_000,
                idle_timeout=mod.idle_timeout,
                hard_timeout=mod.hard_timeout,
                importance=mod.importance,
                flags=mod.flags & f.FlowFlags.SEND_FLOW_REM,
            )
        )

    def _stats(self, message: Message) -> Message | None:
        match message:
            case f.AggregateRequest():
                return f.AggregateReply(1, 2, 3, message.nicira)
            case f.FlowStatsRequest():
                return f.FlowStatsReply(self.flows, message.nicira)
            case f.GroupDescRequest():
                return f.GroupDescReply(self.groups)
            case f.GroupStatsRequest():
                return f.GroupStatsReply(
                    f.GroupStats(group_id=g.group_id, packets=3, buckets=((1, 2),) * len(g.buckets))
                    for g in self.groups
                )
            case m.MeterStatsRequest():
                return m.MeterStatsReply(message.config)
        return CONSTANT.get(type(message))


CONSTANT: dict[type[Message], Message] = {
    m.DescRequest: m.DescReply("maker", "hardware", "software", "serial", "br0"),
    m.TableStatsRequest: m.TableStatsReply(
        [m.TableStats(table_id=n, name=f"t{n}", active=n, lookups=9, matched=4) for n in range(2)]
    ),
    m.TableFeaturesRequest: m.TableFeaturesReply(
        [m.TableFeatures(table_id=n, name=f"t{n}") for n in range(2)]
    ),
    m.TableDescRequest: m.TableDescReply([(n, 0) for n in range(2)]),
    m.PortDescRequest: m.PortDescReply(PORTS),
    m.PortStatsRequest: m.PortStatsReply(
        [m.PortStats(port=1, rx_packets=5, tx_bytes=99, duration_ns=3_000_000_000)]
    ),
    m.QueueStatsRequest: m.QueueStatsReply(),
    f.GroupFeaturesRequest: f.GroupFeaturesReply(
        types=15, capabilities=7, max_groups=(1, 2, 3, 4), actions=(1, 1, 1, 1)
    ),
    m.MeterFeaturesRequest: m.MeterFeaturesReply(),
}


@contextlib.contextmanager
def switch() -> Iterator[Switch]:
    # Not pytest's tmp_path: a socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="hg-of-") as name:
        made = Switch(Path(name) / "of.sock")
        try:
            yield made
        finally:
            made.close()

# SPDX-License-Identifier: Apache-2.0
"""One OpenFlow connection: the version is agreed on, then messages are answered in their order."""

import logging
from collections.abc import Callable

from heliograph.control.bridge import Bridge
from heliograph.control.channel import Channel, ChannelError
from heliograph.control.pace import Bucket
from heliograph.control.requests import Conversation, answer
from heliograph.control.subscriptions import Kind, Subscription
from heliograph.flows.bundles import CommitError
from heliograph.openflow.codec import Frame, decode, encode, refuse, stream
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.kinds import TYPES
from heliograph.openflow.messages import EchoRequest, Error, Hello, Version

log = logging.getLogger(__name__)

_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY = range(4)
_OF_ANY_VERSION = frozenset({_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY})
_REFUSALS = 60  # that are logged, at once or in a minute
_GREETING = 10.0  # seconds for a hello, where no probe says otherwise


class Session:
    """`probe`: seconds of silence after which the peer must show that it is there; None: never."""

    def __init__(
        self,
        bridge: Bridge,
        channel: Channel,
        *,
        name: str,
        versions: frozenset[int],
        kind: Kind,
        probe: float | None = None,
        enabled: bool = True,
        rate: float = 0,
        burst: float = 0,
    ) -> None:
        self.bridge, self.name = bridge, name
        self._channel = channel
        self._versions = versions
        self._probe = probe
        self._kind, self._enabled = kind, enabled
        self._pace = rate, burst
        self._words = Bucket(_REFUSALS / 60, _REFUSALS)
        self._unsaid = 0
        self.conversation: Conversation | None = None
        self.on_agreed: Callable[[], None] = lambda: None

    async def run(self) -> str:
        """Until the connection ends; why it did, "" if the peer just closed it."""
        try:
            if not self._versions:
                raise ChannelError("the bridge's protocols name no version that is spoken")
            await self._greet()
            if self.conversation is None:
                return ""
            self.bridge.peers.add(self.conversation)
            try:
                self.bridge.follow_misses()
                self.on_agreed()
                await self._converse(self.conversation)
            finally:
                self.bridge.peers.remove(self.conversation)
                self.bridge.follow_misses()
        except ChannelError as error:
            return str(error)
        finally:
            self._log_end()
            self._channel.close()
        return ""

    async def _greet(self) -> None:
        await self._channel.send(encode(Hello(self._versions), max(self._versions)))
        try:
            frame = await self._channel.receive(self._probe or _GREETING)
            if frame is None:
                return
            if frame.type != _HELLO:
                raise ChannelError(f"a message of type {frame.type} came instead of a hello")
            hello = decode(frame)
        except TimeoutError as error:
            raise ChannelError("no hello came") from error
        except OpenFlowError as error:
            raise ChannelError(f"what came is no hello: {error}") from error
        assert isinstance(hello, Hello)
        common = self._versions & hello.versions
        if not common:
            said = _versions(self._versions), _versions(hello.versions)
            text = f"this bridge speaks {said[0]}, the peer {said[1]}"
            spoken = max((v for v in hello.versions if v in TYPES), default=Version.V10)
            await self._channel.send(encode(Error(0, 0, data=text.encode()), spoken, frame.xid))
            raise ChannelError(f"no common version: {text}")
        subscription = Subscription(self._kind, max(common), self._enabled)
        self.conversation = Conversation(self.bridge, self._channel, subscription, *self._pace)

    async def _converse(self, conversation: Conversation) -> None:
        while (frame := await self._next(conversation)) is not None:
            if frame.type == _ECHO_REQUEST:
                # Of any version, even of one that nobody speaks.
                await self._channel.send(bytes((frame.version, _ECHO_REPLY)) + frame.data[2:])
                continue
            try:
                conversation.xid = frame.xid
                self._check_version(frame, conversation.version)
                message = decode(frame, table_ids=conversation.table_ids)
                reply = await answer(conversation, message)
            except OpenFlowError as error:
                await self._refuse(error, frame, conversation.version)
                continue
            if reply is not None:
                for part in stream(reply, conversation.version, frame.xid):
                    await self._channel.send(part)
                conversation.monitors.release()

    def _check_version(self, frame: Frame, agreed: int) -> None:
        if frame.version != agreed and frame.type not in _OF_ANY_VERSION:
            raise OpenFlowError(
                Code.OFPBRC_BAD_VERSION,
                f"version {frame.version:#x}, but {agreed:#x} was agreed on",
            )

    async def _refuse(self, error: OpenFlowError, frame: Frame, version: int) -> None:
        self._log_refusal(error)
        if isinstance(error, CommitError):
            inner = Frame(version, 0, error.message.xid, error.message.raw)
            await self._channel.send(refuse(error.error, inner, version))
        await self._channel.send(refuse(error, frame, version))

    def _log_refusal(self, error: OpenFlowError) -> None:
        if not self._words.take():
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} messages before)" if self._unsaid else ""
        log.info("bridge %s: refused %s: %s%s", self.bridge.wanted.name, self.name, error, more)
        self._unsaid = 0

    def _log_end(self) -> None:
        if self._unsaid:
            log.info("%s: %d more of its messages were refused", self.name, self._unsaid)
        if self._channel.left_out:
            log.info("%s: %d frames for it were left out", self.name, self._channel.left_out)

    async def _next(self, conversation: Conversation) -> Frame | None:
        try:
            try:
                return await self._channel.receive(self._probe)
            except TimeoutError:
                await self._channel.send(encode(EchoRequest(), conversation.version))
            try:
                return await self._channel.receive(self._probe)
            except TimeoutError as error:
                raise ChannelError("it does not answer") from error
        except OpenFlowError as error:
            raise ChannelError(f"what came is no OpenFlow: {error}") from error


def _versions(numbers: frozenset[int]) -> str:
    return ", ".join(f"{n:#x}" for n in sorted(numbers))

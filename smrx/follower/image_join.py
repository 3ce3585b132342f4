"""Agree on a state image to start from: one that a majority of the members gives alike.

Every node is asked to keep its state at the same place: after the first log entry that applies a certain command. A
node that is past that command cannot, so the place is chosen further ahead until a majority has it. Images are compared
by position (event, command, trade, state hash) and digest, and one of the majority's is fetched. A node that gives a
different image is reported with the first difference, and does not count; nor does a node that gives none.

Asks nodes, writes nothing. Called by `smrx settle run --join`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from smrx.config import Config
from smrx.feed.feed_errors import Disagreement
from smrx.follower.alarms import AlarmCode, Alarms
from smrx.follower.follow_errors import NotConnected, Unattested
from smrx.follower.interfaces import AskNode
from smrx.sinks.contract import Origin
from smrx.wire import state_image
from smrx.wire.admin import (
    AdminError,
    NodeStatus,
    ReadStateImage,
    StateImagePart,
    StateImageReply,
    Status,
    TakeStateImage,
)
from smrx.wire.frames import FrameError
from smrx.wire.state_image import StreamPosition

#: How long nodes have to reach a place; on a quiet cluster they never do, and it is chosen again.
_PLACE_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.005
#: Commands by which the place is chosen ahead when nodes were past it: so many first, four times as many each time.
_FIRST_LEAD: Final = 16
_MAX_LEAD: Final = 1 << 20


class _Image(NamedTuple):
    """What identifies the state image of a node."""

    position: StreamPosition
    digest: str


class ImageJoin:
    """One attempt to agree on a state image."""

    def __init__(self, config: Config, nodes: Sequence[int], ask: AskNode, alarms: Alarms) -> None:
        """Ask `nodes` of the configuration's members."""
        self._cluster = config.cluster
        self._members = len(config.nodes)
        self._majority = self._members // 2 + 1
        self._nodes = list(dict.fromkeys(nodes))
        self._ask = ask
        self._alarms = alarms
        self._answers: dict[int, str] = {}  #: what each node answered last, for error messages

    def take(self, seconds: float, stop: Callable[[], bool]) -> tuple[bytes, Origin]:
        """Return an attested state image and its origin.

        Raises NotConnected if no node answers, Unattested if no majority gives an image in `seconds`, Disagreement if
        images differ and none can be a majority's.
        """
        deadline = time.monotonic() + seconds
        lead = 0
        while True:
            commands = self._commands()
            at = max(commands.values(), default=0) + lead
            images, any_past = self._images(at, list(commands), min(deadline, time.monotonic() + _PLACE_TIMEOUT_S))
            agreed = self._agreed(images)
            if agreed is not None:
                data = self._fetch(at, agreed, [node for node, image in images.items() if image == agreed])
                if data is not None:
                    return data, self._origin(at, agreed, images, data)
            elif len(set(images.values())) > 1:
                self._check_majority_possible(at, images)
            if time.monotonic() >= deadline or stop():
                answers = ", ".join(f"node {node}: {self._answers.get(node, 'no answer')}" for node in self._nodes)
                if not commands:
                    raise NotConnected(f"no node answered within {seconds:g} s: {answers}")
                raise Unattested(
                    f"{self._majority} of {self._members} nodes must give the same state image, and did not within "
                    f"{seconds:g} s: {answers}"
                )
            lead = min(max(_FIRST_LEAD, 4 * lead), _MAX_LEAD) if any_past else 0

    def _commands(self) -> dict[int, int]:
        """Return the command at which each node that answers stands."""
        commands = {}
        for node in sorted(self._nodes, key=lambda node: node in self._answers):
            status = self._ask(node, Status())
            self._answers.pop(node, None)
            if not isinstance(status, NodeStatus):
                self._answers[node] = "no answer"
            elif status.cluster != self._cluster:
                self._answers[node] = f"is of cluster {status.cluster!r}"
            else:
                commands[node] = status.sequence
        return commands

    def _images(self, at: int, nodes: list[int], deadline: float) -> tuple[dict[int, _Image], bool]:
        """Return the images that nodes keep for command `at`, and whether a node was past that command."""
        images: dict[int, _Image] = {}
        waiting, any_past = list(nodes), False
        while waiting:
            for node in list(waiting):
                reply = self._ask(node, TakeStateImage(at=at))
                if isinstance(reply, StateImageReply) and reply.position is not None:
                    position = reply.position
                    images[node] = _Image(position, reply.digest)
                    self._answers[node] = (
                        f"event {position.event_sequence}, state {position.state_hash:016x}, {reply.digest}"
                    )
                elif isinstance(reply, StateImageReply) and (reply.pending or reply.sequence < at):
                    self._answers[node] = (
                        f"encodes the image of command {at}" if reply.pending else f"has not reached command {at}"
                    )
                    continue
                elif isinstance(reply, StateImageReply):
                    self._answers[node] = f"is past command {at}"
                    any_past = True
                else:
                    self._answers[node] = reply.message if isinstance(reply, AdminError) else "no answer"
                waiting.remove(node)
            if time.monotonic() >= deadline:
                break
            if waiting:
                time.sleep(_POLL_S)
        return images, any_past

    def _agreed(self, images: dict[int, _Image]) -> _Image | None:
        """Return the image that a majority of all members gives, None if there is none."""
        votes = list(images.values())
        return next((image for image in votes if votes.count(image) >= self._majority), None)

    def _check_majority_possible(self, at: int, images: dict[int, _Image]) -> None:
        """Check that nodes without an image can still make a majority. Raises Disagreement."""
        votes = list(images.values())
        most = max(map(votes.count, votes))
        if most + len(self._nodes) - len(votes) >= self._majority:
            return
        (first, expected), *others = sorted(images.items())
        differences = [
            self._difference(at, node, image, first, expected, None) for node, image in others if image != expected
        ]
        raise Disagreement(
            f"{self._majority} of {self._members} nodes must give the same state image, and they differ: "
            f"{'; '.join(differences)}"
        )

    def _origin(self, at: int, agreed: _Image, images: dict[int, _Image], data: bytes) -> Origin:
        """Return the origin of the agreed image, and raise an alarm for each node that gave another one."""
        attested = sorted(node for node, image in images.items() if image == agreed)
        position = agreed.position
        for node, image in sorted(images.items()):
            if image != agreed:
                self._alarms.report(
                    AlarmCode.STATES_DIFFER,
                    self._difference(at, node, image, attested[0], agreed, data),
                    sequence=position.command_sequence,
                    node=node,
                )
        return Origin(
            position.event_sequence, position.command_sequence, position.match_id, position.state_hash, agreed.digest,
            tuple(attested), self._members,
        )  # fmt: skip

    def _difference(self, at: int, node: int, image: _Image, other: int, expected: _Image, data: bytes | None) -> str:
        """Describe the first difference between two nodes' images; `data` is the other's image if it is here."""
        found = self._fetch(at, image, [node])
        data = data if data is not None else self._fetch(at, expected, [other])
        what = "it cannot be read"
        if found is not None and data is not None:
            what = state_image.difference(state_image.decode(found), state_image.decode(data))
        return f"node {node} gives another state image after command {at} than node {other}: {what}"

    def _fetch(self, at: int, wanted: _Image, nodes: list[int]) -> bytes | None:
        """Return the bytes of an image from the first of the nodes that still has it."""
        for node in nodes:
            parts: list[bytes] = []
            more = True
            while more:
                part = self._ask(node, ReadStateImage(at=at, offset=sum(map(len, parts))))
                if not isinstance(part, StateImagePart) or (part.more and not part.data):
                    break
                parts.append(part.data)
                more = part.more
            data = b"".join(parts)
            if not more and state_image.digest(data) == wanted.digest and _is_at(data, wanted.position):
                return data
            self._answers[node] = "announced a state image, and did not send its bytes"
        return None


def _is_at(data: bytes, position: StreamPosition) -> bool:
    try:
        return state_image.decode(data).position == position
    except FrameError:
        return False

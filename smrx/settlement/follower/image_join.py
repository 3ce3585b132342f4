"""How books come to begin in the middle: one state image that a majority of the members gives alike.

Every node is asked to hold its state at the same place, the first log entry that applies a certain command; a node that
is past it already cannot, so the place is chosen further ahead until a majority has it. States are compared by place
(event, command, trade, state hash) and digest, and one of the majority's is fetched. A node that gives another one is
named, with the first thing that differs, and not counted; a node that gives none counts for nothing.

Asks nodes, writes nothing. Called by `smrx settle run --join`.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from smrx.config import Config
from smrx.feed.feed_errors import Disagreement
from smrx.settlement.balance_comparison import Ask
from smrx.settlement.follower.alarms import AlarmCode, Alarms
from smrx.settlement.settlement_errors import NotConnected, Unattested
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

#: How long nodes are waited for to come to a place: on a quiet cluster they never do, and it is chosen anew.
_PLACE_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.005
#: Commands the place is chosen ahead, when nodes were past it: so many first, then four times as many each time.
_FIRST_LEAD: Final = 16
_MOST_LEAD: Final = 1 << 20


class _Given(NamedTuple):
    """What a node says of its state image."""

    position: StreamPosition
    digest: str


class Joining:
    """One attempt to agree on a state image."""

    def __init__(self, config: Config, nodes: Sequence[int], ask: Ask, alarms: Alarms) -> None:
        """Ask `nodes` of the configuration's members."""
        self._cluster = config.cluster
        self._members = len(config.nodes)
        self._majority = self._members // 2 + 1
        self._nodes = list(dict.fromkeys(nodes))
        self._ask = ask
        self._alarms = alarms
        self._said: dict[int, str] = {}

    def take(self, seconds: float, stop: Callable[[], bool]) -> tuple[bytes, Origin]:
        """Return a state image and where it stands, attested.

        Raises NotConnected if no node answers, Unattested if no majority gives one in `seconds`, Disagreement if they
        give different ones and none can be a majority's.
        """
        give_up = time.monotonic() + seconds
        lead = 0
        while True:
            stands = self._stands()
            at = max(stands.values(), default=0) + lead
            given, passed = self._given(at, list(stands), min(give_up, time.monotonic() + _PLACE_SECONDS))
            agreed = self._agreed(given)
            if agreed is not None:
                image = self._fetch(at, agreed, [node for node, said in given.items() if said == agreed])
                if image is not None:
                    return image, self._origin(at, agreed, given, image)
            elif len(set(given.values())) > 1:
                self._check_hopeless(at, given)
            if time.monotonic() >= give_up or stop():
                said = ", ".join(f"node {node}: {self._said.get(node, 'no answer')}" for node in self._nodes)
                if not stands:
                    raise NotConnected(f"expected nodes to answer within {seconds:g} s, found: {said}")
                raise Unattested(
                    f"expected {self._majority} of {self._members} nodes to give the same state image within "
                    f"{seconds:g} s, found: {said}"
                )
            lead = min(max(_FIRST_LEAD, 4 * lead), _MOST_LEAD) if passed else 0

    def _stands(self) -> dict[int, int]:
        """The command each node that answers stands at. Those known to be silent are asked first, as they cost time."""
        stands = {}
        for node in sorted(self._nodes, key=lambda node: node in self._said):
            status = self._ask(node, Status())
            self._said.pop(node, None)
            if not isinstance(status, NodeStatus):
                self._said[node] = "no answer"
            elif status.cluster != self._cluster:
                self._said[node] = f"is of cluster {status.cluster!r}"
            else:
                stands[node] = status.sequence
        return stands

    def _given(self, at: int, nodes: list[int], until: float) -> tuple[dict[int, _Given], bool]:
        """What nodes hold for command `at`, once each does or cannot, and whether one was past it."""
        given: dict[int, _Given] = {}
        waiting, passed = list(nodes), False
        while waiting:
            for node in list(waiting):
                reply = self._ask(node, TakeStateImage(at=at))
                if isinstance(reply, StateImageReply) and reply.position is not None:
                    given[node] = _Given(reply.position, reply.digest)
                    position = reply.position
                    self._said[node] = (
                        f"event {position.event_sequence}, state {position.state_hash:016x}, {reply.digest}"
                    )
                elif isinstance(reply, StateImageReply) and reply.sequence < at:
                    self._said[node] = f"has not come to command {at}"
                    continue
                elif isinstance(reply, StateImageReply):
                    self._said[node] = f"is past command {at}"
                    passed = True
                else:
                    self._said[node] = reply.message if isinstance(reply, AdminError) else "no answer"
                waiting.remove(node)
            if time.monotonic() >= until:
                break
            if waiting:
                time.sleep(_POLL_SECONDS)
        return given, passed

    def _agreed(self, given: dict[int, _Given]) -> _Given | None:
        """What a majority of all members gives."""
        votes = list(given.values())
        return next((said for said in votes if votes.count(said) >= self._majority), None)

    def _check_hopeless(self, at: int, given: dict[int, _Given]) -> None:
        """Check that a majority can still come about. Raises Disagreement."""
        votes = list(given.values())
        most = max(map(votes.count, votes))
        if most + len(self._nodes) - len(votes) >= self._majority:
            return
        (first, expected), *others = sorted(given.items())
        told = [self._difference(at, node, said, first, expected, None) for node, said in others if said != expected]
        raise Disagreement(
            f"expected {self._majority} of {self._members} nodes to give the same state image, found that they "
            f"differ: {'; '.join(told)}"
        )

    def _origin(self, at: int, agreed: _Given, given: dict[int, _Given], image: bytes) -> Origin:
        """What the books are to say of their beginning; names the nodes that gave something else."""
        attested = sorted(node for node, said in given.items() if said == agreed)
        for node, said in sorted(given.items()):
            if said != agreed:
                self._alarms.say(
                    AlarmCode.STATES_DIFFER,
                    self._difference(at, node, said, attested[0], agreed, image),
                    sequence=agreed.position.command_sequence,
                    node=node,
                )
        position = agreed.position
        return Origin(
            position.event_sequence, position.command_sequence, position.match_id, position.state_hash, agreed.digest,
            tuple(attested), self._members,
        )  # fmt: skip

    def _difference(self, at: int, node: int, said: _Given, other: int, expected: _Given, image: bytes | None) -> str:
        """Name the first thing in which a node's state is not another's."""
        found = self._fetch(at, said, [node])
        image = image if image is not None else self._fetch(at, expected, [other])
        what = "it cannot be read"
        if found is not None and image is not None:
            what = state_image.difference(state_image.decode(found), state_image.decode(image))
        return f"node {node} gives another state image after command {at} than node {other}: {what}"

    def _fetch(self, at: int, wanted: _Given, nodes: list[int]) -> bytes | None:
        """Return the state from the first of the nodes that still holds it as it said."""
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
            if not more and state_image.digest(data) == wanted.digest and _readable(data, wanted.position):
                return data
            self._said[node] = "gave a state image, and then not its bytes"
        return None


def _readable(data: bytes, position: StreamPosition) -> bool:
    try:
        return state_image.decode(data).position == position
    except FrameError:
        return False

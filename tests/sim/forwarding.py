"""The library's way with commands that a follower gets (row 11 of smrx/consensus/README.md).

It passes them on to the leader and keeps a callback for each until the leader has answered. When it hears of another
leader it says of all of them that they were not committed (FAIL_REASON.LEADER_CHANGED), which it cannot know; an answer
that is lost on its way leaves a callback for ever.
"""

from smrx.node.order_entry import Reply, Route
from smrx.sim.member import Member
from smrx.sim.simulated_process import DELIVERY, FIRST_CLIENT
from smrx.wire import frames
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint

_PASSED_ON, _CAME_BACK = b"\xff>", b"\xff<"
_MARK = len(_PASSED_ON)
_HEAD = _MARK + DELIVERY.size


class ForwardsToLeader(Member):
    """A node of which clients need not know who leads."""

    def start(self) -> bool:
        #: The frames that wait for the leader's word, by their delivery.
        self._callbacks: dict[bytes, Frame] = {}
        self._followed: int | None = None
        return super().start()

    @property
    def owes(self) -> int:
        return super().owes + sum(frame.count for frame in self._callbacks.values())

    def _deliver(self, source: int, frame: bytes) -> None:
        if source >= FIRST_CLIENT or frame[:_MARK] not in (_PASSED_ON, _CAME_BACK):
            super()._deliver(source, frame)
        elif self.up:
            self._orders.append((source, frame))
            self.wake(self._world.now)

    def take_order(self, delivery: bytes, frame: bytes) -> None:
        mark, whose, content = frame[:_MARK], frame[_MARK:_HEAD], frame[_HEAD:]
        if mark == _PASSED_ON:
            source = DELIVERY.unpack(delivery)[0]
            hint, fenced = self.hint(), self.fenced
            self.order_entry.receive(mark + bytes((source,)) + whose, content, hint, fenced)
        elif mark == _CAME_BACK:
            if self._callbacks.pop(whose, None) is not None:
                super()._send(Reply(whose, content))
        elif not self._pass_on(delivery, frame):
            super().take_order(delivery, frame)

    def _pass_on(self, delivery: bytes, frame: bytes) -> bool:
        leader = self.replica.leader_id
        if leader in (None, self.id):
            return False
        assert leader is not None
        try:
            known = frames.decode(frame)
        except FrameError:
            return False
        if known.kind is FrameKind.PING:
            # Everybody takes commands.
            me = LeaderHint(self.id, None, self.id, self.replica.term)
            super()._send(Reply(delivery, frames.encode_body(FrameKind.PONG, me, known.correlation)))
        else:
            self._callbacks[delivery] = known
            self.network.send(self.id, leader, _PASSED_ON + delivery + frame)
        return True

    def _submitted(self, index: int, term: int, routes: list[Route]) -> None:
        for route in routes:
            self._checker.submitted(route.identity[-DELIVERY.size :])
        self.order_entry.submitted(index, term, routes)

    def _send(self, reply: Reply) -> None:
        if reply.identity[:_MARK] == _PASSED_ON:
            whose = reply.identity[-DELIVERY.size :]
            self.network.send(self.id, reply.identity[_MARK], _CAME_BACK + whose + reply.frame)
        else:
            super()._send(reply)

    def _update_leadership(self) -> None:
        super()._update_leadership()
        leader = self.replica.leader_id
        if leader is not None and leader != self._followed:
            self._followed = leader
            waiting, self._callbacks = self._callbacks, {}
            body = ErrorBody(int(ErrorCode.OVERLOADED), "the leader has changed without a commit of the command")
            for delivery, frame in waiting.items():
                super()._send(Reply(delivery, frames.encode_body(FrameKind.ERROR, body, frame.correlation)))

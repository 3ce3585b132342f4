"""What the library does with commands that a follower receives (row 11 of smrx/consensus/README.md).

It forwards them to the leader and keeps a callback for each until the leader has answered. When the leader changes, it
reports all of them as not committed (FAIL_REASON.LEADER_CHANGED), though they may be; a callback origin answer is lost
is kept without end.
"""

from smrx.node.order_entry import Reply, Route, RouteRun, each_route
from smrx.sim.simulated_node import SimulatedNode
from smrx.sim.simulated_process import DELIVERY, FIRST_CLIENT
from smrx.wire import frames
from smrx.wire.frames import ErrorBody, ErrorCode, Frame, FrameError, FrameKind, LeaderHint

_FORWARDED, _ANSWERED = b"\xff>", b"\xff<"
_MARK = len(_FORWARDED)
_HEAD = _MARK + DELIVERY.size


class ForwardsToLeader(SimulatedNode):
    """A node that takes commands whether it leads or not."""

    def start(self) -> bool:
        #: The frames that wait for the leader's answer, by their delivery.
        self._callbacks: dict[bytes, Frame] = {}
        self._last_leader: int | None = None
        return super().start()

    @property
    def unanswered_commands(self) -> int:
        return super().unanswered_commands + sum(frame.count for frame in self._callbacks.values())

    def _deliver(self, source: int, frame: bytes) -> None:
        if source >= FIRST_CLIENT or frame[:_MARK] not in (_FORWARDED, _ANSWERED):
            super()._deliver(source, frame)
        elif self.up:
            self._orders.append((source, frame))
            self.wake(self._scheduler.now)

    def receive_order(self, delivery: bytes, frame: bytes) -> None:
        mark, origin, content = frame[:_MARK], frame[_MARK:_HEAD], frame[_HEAD:]
        if mark == _FORWARDED:
            source = DELIVERY.unpack(delivery)[0]
            hint, fenced = self.hint(), self.fenced
            self.order_entry.receive(mark + bytes((source,)) + origin, content, hint, fenced)
        elif mark == _ANSWERED:
            if self._callbacks.pop(origin, None) is not None:
                super()._send(Reply(origin, content))
        elif not self._forward(delivery, frame):
            super().receive_order(delivery, frame)

    def _forward(self, delivery: bytes, frame: bytes) -> bool:
        leader = self.replica.leader_id
        if leader in (None, self.id):
            return False
        assert leader is not None
        try:
            known = frames.decode(frame)
        except FrameError:
            return False
        if known.kind is FrameKind.PING:
            # Every node takes commands.
            me = LeaderHint(self.id, None, self.id, self.replica.term)
            super()._send(Reply(delivery, frames.encode_body(FrameKind.PONG, me, known.correlation)))
        else:
            self._callbacks[delivery] = known
            self.network.send(self.id, leader, _FORWARDED + delivery + frame)
        return True

    def _submitted(self, index: int, term: int, routes: list[Route | RouteRun]) -> None:
        for route in each_route(routes):
            self._checker.frame_submitted(route.identity[-DELIVERY.size :])
        self.order_entry.submitted(index, term, routes)

    def _send(self, reply: Reply) -> None:
        if reply.identity[:_MARK] == _FORWARDED:
            origin = reply.identity[-DELIVERY.size :]
            self.network.send(self.id, reply.identity[_MARK], _ANSWERED + origin + reply.frame)
        else:
            super()._send(reply)

    def _update_leadership(self) -> None:
        super()._update_leadership()
        leader = self.replica.leader_id
        if leader is not None and leader != self._last_leader:
            self._last_leader = leader
            waiting, self._callbacks = self._callbacks, {}
            body = ErrorBody(int(ErrorCode.OVERLOADED), "the leader has changed without a commit of the command")
            for delivery, frame in waiting.items():
                super()._send(Reply(delivery, frames.encode_body(FrameKind.ERROR, body, frame.correlation)))

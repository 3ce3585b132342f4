"""ClientSession: exactly once, in order, whatever the network does."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx.engine.codes import CommandKind, OutcomeStatus, Reason
from smrx.engine.records import COMMAND, OUTCOME
from smrx.wire import frames
from smrx.wire.frames import ErrorBody, ErrorCode, FrameKind, LeaderHint
from smrx.wire.session import ClientSession
from smrx.wire.states import TRANSITIONS, Event, LocalError, Reset, Send, State
from smrx.wire.window import Window
from tests.wire import network
from tests.wire.network import ACCOUNT, SESSION, Network, orders, run

A, B = "tcp://node:1", "tcp://node:2"

scripts = st.lists(st.integers(0, 100_000), min_size=1, max_size=250)


def make(addresses: Sequence[str]) -> ClientSession:
    return ClientSession(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)


@given(scripts)
def test_every_request_is_applied_exactly_once_in_order_and_answered_with_its_outcome(script: list[int]) -> None:
    run(make, script)


@given(scripts)
def test_exactly_once_holds_where_the_exchange_forgets_its_answers(script: list[int]) -> None:
    run(make, script, remembers=False)


class RenumberingWindow(Window):
    """A fault: what is sent again gets new request ids."""

    def rewind(self) -> None:
        if self.sent > self.answered:
            self._session_id, shift = self._session_id, self.sent - self.answered
            for name in ("_ring",):
                getattr(self, name)["request_id"] += np.uint64(shift)
        super().rewind()


class Renumbering(ClientSession):
    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)
        self._window = RenumberingWindow(SESSION, 16)


class Forgetful(ClientSession):
    """A fault: a new try begins behind what was sent, not behind what was answered."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)
        self._window.rewind = lambda: None  # type: ignore[method-assign]  # the fault


class Credulous(ClientSession):
    """A fault: a refusal that consumed nothing passes for an answer."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)

    def _consumed(self, outcomes: np.ndarray, current: bool) -> int:
        return len(outcomes)


class NewSession(ClientSession):
    """A fault: every try is a session of its own."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(SESSION, ACCOUNT, addresses, window=16, frame_commands=4)

    def _begin_try(self, now: float) -> None:
        self._opened = False
        self.session_id += 1
        self._window._session_id = self.session_id
        self._window._ring["session_id"] = self.session_id
        super()._begin_try(now)


@pytest.mark.parametrize("faulty", [Renumbering, Forgetful, Credulous, NewSession])
def test_a_faulty_session_is_caught(faulty: type[ClientSession]) -> None:
    def fails(script: list[int]) -> bool:
        try:
            run(faulty, script)  # type: ignore[arg-type]  # its constructor takes the addresses alone
        except (AssertionError, LocalError, frames.FrameError):
            return True
        return False

    rng = random.Random(1)
    assert any(fails([rng.randrange(100_000) for _ in range(200)]) for _ in range(60))

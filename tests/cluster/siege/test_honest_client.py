"""The honest client notices outcomes that are not those of what it sent, and errors."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.siege import honest_client
from cluster.siege.honest_client import SampleKind
from smrx.client.client_errors import Unavailable


class Exchange:
    """Answers the orders of the client; `placed` and `cancelled` change an answer."""

    def __init__(self) -> None:
        self.number = 0
        self.placed: Callable[[Any], Any] = lambda answer: answer
        self.cancelled: Callable[[Any], Any] = lambda answer: answer

    def place_limit(self, symbol: str, side: str, price: str, quantity: str) -> Any:
        self.number += 1
        return self.placed(SimpleNamespace(state="New", remaining=quantity, order_id=self.number))

    def cancel(self, *, order_id: int) -> Any:
        return self.cancelled(SimpleNamespace(state="Cancelled", cum_lots=0, order_id=order_id))


class Samples:
    """Takes the first four samples and then closes the pipe."""

    def __init__(self) -> None:
        self.kinds: list[SampleKind] = []

    def write(self, data: bytes) -> None:
        if len(self.kinds) == 4:
            raise BrokenPipeError
        self.kinds.append(SampleKind(honest_client._SAMPLE.unpack(data)[2]))

    def flush(self) -> None:
        """Do nothing."""


def with_field(name: str, value: object) -> Callable[[Any], Any]:
    return lambda answer: SimpleNamespace(**vars(answer) | {name: value})


def fails(_: Any) -> Any:
    raise Unavailable("no answer", range(0))


@pytest.mark.parametrize(
    ("which", "change", "expected"),
    [
        ("placed", lambda answer: answer, SampleKind.ACKNOWLEDGED),
        ("placed", with_field("state", "Rejected"), SampleKind.WRONG),
        # The outcome of another order, as after a theft of the session.
        ("placed", with_field("remaining", "77.0000"), SampleKind.WRONG),
        ("placed", fails, SampleKind.FAILED),
        ("cancelled", with_field("cum_lots", 5), SampleKind.WRONG),
        ("cancelled", fails, SampleKind.FAILED),
    ],
)
def test_wrong_outcomes_and_errors_are_noticed(which: str, change: Callable[[Any], Any], expected: SampleKind) -> None:
    exchange, samples = Exchange(), Samples()
    setattr(exchange, which, change)
    honest_client.trade(exchange, samples, 0.0)  # type: ignore[arg-type]
    assert expected in samples.kinds
    assert set(samples.kinds) <= {expected, SampleKind.ACKNOWLEDGED}

"""What a verb needs from outside while it runs: a verb is a generator that yields these and is sent the results.

So each verb is written once; the blocking and the asyncio client differ in how they carry a step out.
"""

import inspect
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from smrx.wire.admin import AnyRequest

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Connect(NamedTuple):
    """Open the session, or wait until it is open. Sent: None."""


class Submit(NamedTuple):
    """Send commands. Sent: their outcomes."""

    commands: NDArray[np.void]


class Query(NamedTuple):
    """Ask one node. Sent: its reply, or None if there was none within `wait_s`."""

    address: str
    request: AnyRequest
    wait_s: float


class Sleep(NamedTuple):
    """Let some time pass. Sent: None."""

    seconds: float


Step = Connect | Submit | Query | Sleep
#: A verb on its way to a T.
Steps = Generator[Step, Any, T]


def with_signature_of(verb: Callable[..., Steps[Any]]) -> Callable[[F], F]:
    """Give a function the name, the words and the arguments of a verb, and what the verb comes to as its result."""

    def dress(function: F) -> F:
        dressed = wraps(verb)(function)
        signature = inspect.signature(verb)
        # Steps[T] is a Generator of three parameters, the last of which is what it returns.
        result = get_args(signature.return_annotation)[-1]
        vars(dressed)["__signature__"] = signature.replace(return_annotation=result)
        return function

    return dress

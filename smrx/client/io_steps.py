"""Define the I/O steps of an operation: a generator that yields steps and is sent their results.

So each operation is written once. The blocking and the asyncio client differ in how they run a step.
"""

import inspect
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any, NamedTuple, TypeVar, get_args

from smrx.wire.admin import AnyRequest
from smrx.wire.command_list import CommandList

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Connect(NamedTuple):
    """Wait until the session is open. Result: None."""


class Submit(NamedTuple):
    """Send commands. Result: their outcomes."""

    commands: CommandList


class Query(NamedTuple):
    """Send an admin request to one node. Result: the reply, or None if none arrives in time."""

    address: str
    request: AnyRequest
    timeout_s: float


class Sleep(NamedTuple):
    """Wait. Result: None."""

    seconds: float


Step = Connect | Submit | Query | Sleep
#: A running operation that returns a T.
Steps = Generator[Step, Any, T]


def with_signature_of(operation: Callable[..., Steps[Any]]) -> Callable[[F], F]:
    """Return a decorator that copies an operation's name, docstring and arguments, with T as the return type."""

    def decorate(function: F) -> F:
        wraps(operation)(function)
        signature = inspect.signature(operation)
        # Steps[T] is a Generator of three parameters; the last is its return type.
        result = get_args(signature.return_annotation)[-1]
        vars(function)["__signature__"] = signature.replace(return_annotation=result)
        return function

    return decorate

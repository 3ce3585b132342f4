"""What a verb needs from outside while it runs: a verb is a generator that yields these and is sent the results.

So each verb is written once; the blocking and the asyncio client differ in how they carry a step out.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from smrx.wire.admin import AnyRequest

T = TypeVar("T")


class Connect(NamedTuple):
    """Open the session, or wait until it is open. Sent: None."""


class Submit(NamedTuple):
    """Send commands. Sent: their outcomes."""

    commands: NDArray[np.void]


class Exchange(NamedTuple):
    """Ask one node. Sent: its reply, or None if there was none within `wait_s`."""

    address: str
    request: AnyRequest
    wait_s: float


class Pause(NamedTuple):
    """Let some time pass. Sent: None."""

    seconds: float


Step = Connect | Submit | Exchange | Pause
#: A verb on its way to a T.
Steps = Generator[Step, Any, T]

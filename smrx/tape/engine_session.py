"""An engine in this process with one session of the operator, for checks of tapes without a cluster.

The operator (account 0) acts for every account of a tape. Called by the checks of this package, by the benchmarks and
by tests, which may use another engine.
"""

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND

#: Any session id except 0: the engine has no other sessions.
_SESSION: Final = 1
#: The venue's own account.
OPERATOR: Final = 0


class EngineLike(Protocol):
    """The interface of an engine; implemented by smrx.engine.Engine and by the oracle of the tests."""

    @property
    def trade_count(self) -> int: ...

    @property
    def sequence(self) -> int: ...

    @property
    def state_hash(self) -> int: ...

    @property
    def inspect(self) -> Any: ...

    def apply(self, commands: NDArray[np.void], time_ns: int, details: NDArray[np.void], /) -> Any:
        """Return something with `outcomes` and `events`."""
        ...


def new_engine() -> EngineLike:
    """Return an empty engine. It is imported here because importing it is slow."""
    from smrx.engine import Engine

    engine: EngineLike = Engine()
    return engine


class EngineSession:
    """An engine and a session of the operator on it."""

    def __init__(self, engine: EngineLike | None = None) -> None:
        self.engine = new_engine() if engine is None else engine
        self._requests = 0
        opening = np.zeros(1, dtype=COMMAND)
        opening["kind"], opening["session_id"], opening["account"] = CommandKind.OPEN_SESSION, _SESSION, OPERATOR
        self.engine.apply(opening, 0, NO_DETAILS)

    def apply(self, commands: NDArray[np.void], details: NDArray[np.void] = NO_DETAILS, time_ns: int = 0) -> Any:
        """Number commands and apply them; return the engine's result."""
        return self.apply_numbered(self.numbered(commands), time_ns, details)

    def numbered(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """Return a copy of commands with session and request ids. They must be applied next, in order."""
        numbered = commands.copy()
        numbered["session_id"] = _SESSION
        numbered["request_id"] = np.arange(self._requests + 1, self._requests + 1 + len(commands), dtype=np.uint64)
        self._requests += len(commands)
        return numbered

    def apply_numbered(self, commands: NDArray[np.void], time_ns: int, details: NDArray[np.void] = NO_DETAILS) -> Any:
        """Apply commands that numbered() returned, or the next part of them; `details` are those of all of them."""
        return self.engine.apply(commands, time_ns, details)

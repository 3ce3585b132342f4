"""One operator's session, in this process: what a cluster does with a tape, done by an engine alone.

The operator (account 0) acts for every account of a tape. Called by verification, here and by tests, which may put
another engine in.
"""

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND

#: Any session id but 0 would do: the engine is empty and nobody else's.
_SESSION: Final = 1
#: The operator: the venue's own account.
OPERATOR: Final = 0


class EngineLike(Protocol):
    """What an engine must offer; smrx.engine.Engine does, and so does the oracle of the tests."""

    @property
    def trade_count(self) -> int: ...

    @property
    def sequence(self) -> int: ...

    @property
    def state_hash(self) -> int: ...

    @property
    def inspect(self) -> Any: ...

    def apply(self, commands: NDArray[np.void], time_ns: int, /) -> Any:
        """Return something with `outcomes` and `events`."""
        ...


def new_engine() -> EngineLike:
    """An empty engine; imported only now, because importing it may compile."""
    from smrx.engine import Engine

    engine: EngineLike = Engine()
    return engine


class LocalSession:
    """An engine and one session of the operator on it."""

    def __init__(self, engine: EngineLike | None = None) -> None:
        self.engine = new_engine() if engine is None else engine
        self._requests = 0
        opening = np.zeros(1, dtype=COMMAND)
        opening["kind"], opening["session_id"], opening["account"] = CommandKind.OPEN_SESSION, _SESSION, OPERATOR
        self.engine.apply(opening, 0)

    def apply(self, commands: NDArray[np.void], time_ns: int = 0) -> Any:
        """Apply commands whose session and request ids are filled in here; return the engine's result."""
        return self.apply_numbered(self.numbered(commands), time_ns)

    def numbered(self, commands: NDArray[np.void]) -> NDArray[np.void]:
        """A copy of commands with the ids of this session, to be applied next and in order."""
        numbered = commands.copy()
        numbered["session_id"] = _SESSION
        numbered["request_id"] = np.arange(self._requests + 1, self._requests + 1 + len(commands), dtype=np.uint64)
        self._requests += len(commands)
        return numbered

    def apply_numbered(self, commands: NDArray[np.void], time_ns: int) -> Any:
        """Apply (a part of) what numbered() returned."""
        return self.engine.apply(commands, time_ns)

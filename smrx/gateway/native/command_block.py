"""Hold the commands that a gateway collects in a turn, and who waits for their outcomes.

Owns nothing but the arrays. Filled by packet_splitter.py; native_server.py submits them.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx.wire.frames import MAX_COMMANDS
from smrx.wire.records import COMMAND_SIZE, DETAILS_SIZE


class Route:
    """Who waits for the outcomes of a block: the slot of each command, and the commands as words."""

    __slots__ = ("opening", "slots", "words")

    def __init__(
        self, slots: NDArray[np.int64], words: NDArray[np.uint64], opening: dict[int, int] | None = None
    ) -> None:
        self.slots = slots
        self.words = words
        #: Of an OPEN_SESSION: columns of the client's row in the table, and their values once the session is open.
        self.opening = opening

    def part(self, rows: NDArray[np.bool_]) -> "Route":
        """Return who waits for some of the outcomes. An OPEN_SESSION is a block of its own and has no parts."""
        return Route(self.slots[rows], self.words[rows])

    def commands(self) -> Iterator[tuple[int, int, int]]:
        """Yield the slot, the session and the request of each command."""
        yield from zip(self.slots.tolist(), self.words[:, 1].tolist(), self.words[:, 2].tolist(), strict=True)


class LoneRoute(NamedTuple):
    """Who waits for the outcome of a lone order: its client's slot, and the command."""

    slot: int
    body: bytes

    def commands(self) -> Iterator[tuple[int, int, int]]:
        """Yield the slot, the session and the request of the command."""
        yield self.slot, int.from_bytes(self.body[8:16], "little"), int.from_bytes(self.body[16:24], "little")


#: Who waits for a block.
AnyRoute = Route | LoneRoute


class Block:
    """The commands that were collected and not submitted yet."""

    def __init__(self) -> None:
        self.words: NDArray[np.uint64] = np.zeros((MAX_COMMANDS, COMMAND_SIZE // 8), np.uint64)
        self.commands: NDArray[np.uint8] = self.words.view(np.uint8)
        self.detail_words: NDArray[np.uint64] = np.zeros((MAX_COMMANDS, DETAILS_SIZE // 8), np.uint64)
        self.details: NDArray[np.uint8] = self.detail_words.view(np.uint8)
        self.routes: NDArray[np.int64] = np.zeros(MAX_COMMANDS, np.int64)
        self.counts: NDArray[np.int64] = np.zeros(2, np.int64)


class Submit(Protocol):
    """Upstream.submit() without the clock."""

    def __call__(
        self, route: Route | LoneRoute, body: bytes, commands: int, details: int = 0, *, droppable: bool = False
    ) -> None:
        """Send a block."""

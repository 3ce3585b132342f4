"""Produce an endless order flow that leaves the book as it found it, for runs longer than a tape.

One piece is built once. Each time it is used again, its orders get new client order ids: four characters for the place
in the piece, four for the number of the piece. A piece cancels deep orders of its own or of the piece before, and fills
its own near orders. Called by memory_bench.py and cluster_bench.py.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import tapes
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import COMMAND

Commands = NDArray[Any]

MIDDLE_TICKS: Final = 100_000
MAKER: Final = 1
TAKER: Final = 2
#: A block of ten commands: three orders near the touch, three deep orders, three cancels of deep orders, one taker.
BLOCK: Final = 10
NEAR: Final = slice(0, 3)
DEEP: Final = slice(3, 6)
_CANCELS: Final = slice(6, 9)
_TAKER_AT: Final = 9
#: Numbers of pieces before client order ids repeat; only orders of the last two pieces are open.
PIECE_NUMBERS: Final = 10_000
_IDS_IN_BLOCK: Final = 6


class SteadyBlocks:
    """A piece: `count` blocks of commands on instrument tapes.INSTRUMENT, with session and request ids 0.

    The cancels of a block name the deep orders placed `lag_blocks` blocks earlier. The taker takes exactly the near
    orders of its block.
    """

    def __init__(self, count: int, seed: int, lag_blocks: int) -> None:
        self._lag_blocks = lag_blocks
        self._rows = _blocks(count, seed)
        # Four hexadecimal digits for each order of a piece, in the low half of the word.
        texts = [f"{number:04x}".encode() for number in range(count * _IDS_IN_BLOCK)]
        placed = np.array([int.from_bytes(text, "little") for text in texts], np.uint64).reshape(count, _IDS_IN_BLOCK)
        ids = np.zeros((count, BLOCK), np.uint64)
        ids[:, : _CANCELS.start] = placed
        ids[:, _CANCELS] = np.roll(placed[:, DEEP], lag_blocks, axis=0)
        before = np.zeros((count, BLOCK), bool)
        before[:lag_blocks, _CANCELS] = True
        #: The id of a command is ids + own * characters of its piece + earlier * characters of the piece before.
        self.ids = ids.reshape(-1)
        self.earlier = before.reshape(-1).astype(np.uint64)
        self.own = ((ids > 0) & ~before).reshape(-1).astype(np.uint64)

    def piece(self, number: int) -> Commands:
        """Return a copy of the commands, as piece `number`."""
        rows = self._rows.copy()
        self.rename(rows, number)
        return rows

    def rename(self, rows: Commands, number: int) -> None:
        """Turn another piece into piece `number`."""
        rows["client_order_id"] = (
            self.ids + self.own * piece_characters(number) + self.earlier * piece_characters(number - 1)
        )

    def before(self) -> Commands:
        """Return the orders that piece 0 cancels and does not place."""
        rows = self.piece(-1).reshape(-1, BLOCK)
        return rows[len(rows) - self._lag_blocks :, DEEP].reshape(-1).copy()


def piece_characters(number: int) -> np.uint64:
    """Return four digits as the high half of a client order id."""
    return np.uint64(int.from_bytes(f"{number % PIECE_NUMBERS:04d}".encode(), "little") << 32)


def _blocks(count: int, seed: int) -> Commands:
    random = np.random.default_rng(seed)
    rows = np.zeros((count, BLOCK), COMMAND)
    placed = [0, 1, 2, 3, 4, 5, _TAKER_AT]
    rows["kind"] = CommandKind.PLACE
    rows["kind"][:, _CANCELS] = CommandKind.CANCEL
    rows["account"] = MAKER
    rows["account"][:, _TAKER_AT] = TAKER
    side = np.where(np.arange(count) % 2 == 0, Side.BUY, Side.SELL).astype(np.uint8)
    sign = np.where(side == Side.BUY, -1, 1)
    rows["side"][:, : _CANCELS.start] = side[:, None]
    rows["side"][:, _TAKER_AT] = int(Side.BUY) + int(Side.SELL) - side
    near, deep = random.integers(1, 10, (count, 3)), random.integers(20, 500, (count, 3))
    rows["price_ticks"][:, NEAR] = MIDDLE_TICKS + sign[:, None] * near
    rows["price_ticks"][:, DEEP] = MIDDLE_TICKS + sign[:, None] * deep
    rows["price_ticks"][:, _TAKER_AT] = MIDDLE_TICKS + sign * 15
    rows["quantity_lots"][:, : _CANCELS.start] = random.integers(1, 100, (count, 6))
    rows["quantity_lots"][:, _TAKER_AT] = rows["quantity_lots"][:, NEAR].sum(axis=1)
    for name, value in (("order_type", OrderType.LIMIT), ("tif", TimeInForce.GTC), ("stp", Stp.CANCEL_NEWEST)):
        rows[name][:, placed] = value
    rows["tif"][:, _TAKER_AT] = TimeInForce.IOC
    rows["instrument"][:, placed] = tapes.INSTRUMENT
    return rows.reshape(-1)


class SteadyFlow:
    """The flow of one maker and one taker, each with its own session, on the market of tapes.market(2)."""

    def __init__(self, piece: int = 10_000, seed: int = 1) -> None:
        if piece < BLOCK or piece % BLOCK:
            raise ValueError(f"piece: expected a multiple of {BLOCK}, found {piece}")
        self.blocks = piece // BLOCK
        self._pieces_used = 0
        self._blocks = SteadyBlocks(self.blocks, seed, lag_blocks=self.blocks)
        self._rows = self._blocks.piece(0)
        # The deep orders of setup() are the maker's first requests.
        numbering = tapes.Numbering(2)
        numbering.last_request[MAKER] = 3 * self.blocks
        numbering.number(self._rows)
        self._requests = np.where(self._rows["account"] == MAKER, self.blocks * (BLOCK - 1), self.blocks).astype(
            np.uint64
        )

    def setup(self) -> CommandList:
        """Return the market, and the deep orders that the first piece cancels."""
        deep = self._blocks.before()
        deep["session_id"], deep["request_id"] = MAKER, np.arange(1, len(deep) + 1)
        return join([tapes.market(2), CommandList(deep)])

    def next(self) -> Commands:
        """Return the next piece; the next call overwrites its memory."""
        if self._pieces_used:
            self._rows["request_id"] += self._requests
            self._blocks.rename(self._rows, self._pieces_used)
        self._pieces_used += 1
        return self._rows

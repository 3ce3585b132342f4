"""An endless flow that leaves the book as it found it: for measurements that take more commands than a tape holds.

One piece is made once; each time it is used, its request ids and client order ids go on where the last use ended. A
piece cancels the deep orders of the piece before, and takes its own near ones. Called by memory_bench.py and
latency_bench.py.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import tapes
from smrx.wire.codes import CommandKind, OrderType, Side, Stp, TimeInForce
from smrx.wire.records import COMMAND

Commands = NDArray[Any]

MIDDLE_TICKS: Final = 100_000
MAKER: Final = 1
TAKER: Final = 2
#: A block is three orders near the touch, three deep ones, three cancels of deep ones, and an order that takes: ten.
BLOCK: Final = 10
_NEAR: Final = slice(0, 3)
_DEEP: Final = slice(3, 6)
_CANCELS: Final = slice(6, 9)
_TAKE: Final = 9


class Steady:
    """The flow of one maker and one taker, each with its own session, on the market of tapes.market(2)."""

    def __init__(self, piece: int = 10_000, seed: int = 1) -> None:
        if piece < BLOCK or piece % BLOCK:
            raise ValueError(f"piece: expected a multiple of {BLOCK}, found {piece}")
        self.blocks = piece // BLOCK
        self._used = 0
        self._rows = self._piece(seed)
        self._requests = np.where(self._rows["account"] == MAKER, self.blocks * (BLOCK - 1), self.blocks).astype(
            np.uint64
        )
        self._named = self._rows["client_order_id"] > 0

    def opening(self) -> Commands:
        """The market, and the deep orders that the first piece cancels."""
        deep = self._rows.reshape(-1, BLOCK)[:, _DEEP].reshape(-1).copy()
        deep["client_order_id"] -= np.uint64(self.blocks * BLOCK)
        deep["request_id"] = np.arange(1, len(deep) + 1)
        return np.concatenate([tapes.market(2), deep])

    def next(self) -> Commands:
        """The next piece, in memory that the next call uses again."""
        if self._used:
            self._rows["request_id"] += self._requests
            self._rows["client_order_id"][self._named] += np.uint64(self.blocks * BLOCK)
        self._used += 1
        return self._rows

    def _piece(self, seed: int) -> Commands:
        random = np.random.default_rng(seed)
        rows = np.zeros((self.blocks, BLOCK), COMMAND)
        placed = [0, 1, 2, 3, 4, 5, _TAKE]
        rows["kind"] = CommandKind.PLACE
        rows["kind"][:, _CANCELS] = CommandKind.CANCEL
        rows["account"] = MAKER
        rows["account"][:, _TAKE] = TAKER
        side = np.where(np.arange(self.blocks) % 2 == 0, Side.BUY, Side.SELL).astype(np.uint8)
        sign = np.where(side == Side.BUY, -1, 1)
        rows["side"][:, : _CANCELS.start] = side[:, None]
        rows["side"][:, _TAKE] = int(Side.BUY) + int(Side.SELL) - side
        near, deep = random.integers(1, 10, (self.blocks, 3)), random.integers(20, 500, (self.blocks, 3))
        rows["price_ticks"][:, _NEAR] = MIDDLE_TICKS + sign[:, None] * near
        rows["price_ticks"][:, _DEEP] = MIDDLE_TICKS + sign[:, None] * deep
        rows["price_ticks"][:, _TAKE] = MIDDLE_TICKS + sign * 15
        rows["quantity_lots"][:, : _CANCELS.start] = random.integers(1, 100, (self.blocks, 6))
        rows["quantity_lots"][:, _TAKE] = rows["quantity_lots"][:, _NEAR].sum(axis=1)
        for name, value in (("order_type", OrderType.LIMIT), ("tif", TimeInForce.GTC), ("stp", Stp.CANCEL_NEWEST)):
            rows[name][:, placed] = value
        rows["tif"][:, _TAKE] = TimeInForce.IOC
        rows["instrument"][:, placed] = tapes.INSTRUMENT
        names = np.arange(self.blocks, dtype=np.uint64)[:, None] * np.uint64(BLOCK) + np.arange(1, 7, dtype=np.uint64)
        rows["client_order_id"][:, _CANCELS] = names[:, _DEEP]
        rows["client_order_id"][:, : _CANCELS.start] = names + np.uint64(self.blocks * BLOCK)
        flat = rows.reshape(-1)
        # The deep orders of the opening were the maker's first requests.
        numbering = tapes.Numbering(2)
        numbering.last_request[MAKER] = 3 * self.blocks
        numbering.number(flat)
        return flat

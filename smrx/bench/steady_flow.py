"""Produce an endless order flow that leaves the book as it found it, for runs longer than a tape.

One piece is built once. Each time it is used again, its request ids and client order ids continue where the last use
ended. A piece cancels the deep orders of an earlier piece and fills its own near orders. Called by memory_bench.py and
cluster_bench.py.
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
#: A block of ten commands: three orders near the touch, three deep orders, three cancels of deep orders, one taker.
BLOCK: Final = 10
NEAR: Final = slice(0, 3)
DEEP: Final = slice(3, 6)
_CANCELS: Final = slice(6, 9)
_TAKER_AT: Final = 9


def steady_blocks(count: int, seed: int, lag_blocks: int) -> Commands:
    """Return `count` blocks of commands on instrument tapes.INSTRUMENT.

    The cancels of a block name the deep orders placed `lag_blocks` blocks earlier. The taker takes exactly the near
    orders of its block. Placed orders have client order ids from lag_blocks * BLOCK + 1; session and request ids are 0.
    """
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
    ids = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(BLOCK) + np.arange(1, 7, dtype=np.uint64)
    rows["client_order_id"][:, _CANCELS] = ids[:, DEEP]
    rows["client_order_id"][:, : _CANCELS.start] = ids + np.uint64(lag_blocks * BLOCK)
    return rows.reshape(-1)


class SteadyFlow:
    """The flow of one maker and one taker, each with its own session, on the market of tapes.market(2)."""

    def __init__(self, piece: int = 10_000, seed: int = 1) -> None:
        if piece < BLOCK or piece % BLOCK:
            raise ValueError(f"piece: expected a multiple of {BLOCK}, found {piece}")
        self.blocks = piece // BLOCK
        self._pieces_used = 0
        self._rows = steady_blocks(self.blocks, seed, lag_blocks=self.blocks)
        # The deep orders of setup() are the maker's first requests.
        numbering = tapes.Numbering(2)
        numbering.last_request[MAKER] = 3 * self.blocks
        numbering.number(self._rows)
        self._requests = np.where(self._rows["account"] == MAKER, self.blocks * (BLOCK - 1), self.blocks).astype(
            np.uint64
        )
        self._has_order_id = self._rows["client_order_id"] > 0

    def setup(self) -> Commands:
        """Return the market, and the deep orders that the first piece cancels."""
        deep = self._rows.reshape(-1, BLOCK)[:, DEEP].reshape(-1).copy()
        deep["client_order_id"] -= np.uint64(self.blocks * BLOCK)
        deep["request_id"] = np.arange(1, len(deep) + 1)
        return np.concatenate([tapes.market(2), deep])

    def next(self) -> Commands:
        """Return the next piece; the next call overwrites its memory."""
        if self._pieces_used:
            self._rows["request_id"] += self._requests
            self._rows["client_order_id"][self._has_order_id] += np.uint64(self.blocks * BLOCK)
        self._pieces_used += 1
        return self._rows

"""A stub of a cluster: an engine with a session, which may have been used before."""

import numpy as np
from numpy.typing import NDArray

from smrx.client.instruments import Asset, Instrument
from smrx.tape.engine_session import EngineLike, new_engine
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import NO_DETAILS
from smrx.wire.records import COMMAND, EVENT, unpack_symbol

Records = NDArray[np.void]


class ClusterStub:
    """Takes commands like smrx.Client, and returns the events like a subscriber."""

    def __init__(self, engine: EngineLike | None = None) -> None:
        self.engine = new_engine() if engine is None else engine
        self.submissions: list[int] = []
        self._events: list[Records] = []
        self._read = 0
        self._session = 0
        self.connect()

    def connect(self) -> None:
        """Open a new session for the next commands."""
        self._session += 7_777
        self._requests = 0
        opening = np.zeros(1, dtype=COMMAND)
        opening["kind"], opening["session_id"] = CommandKind.OPEN_SESSION, self._session
        self._apply(opening, NO_DETAILS)

    def submit(self, commands: Records, details: Records = NO_DETAILS, /) -> Records:
        self.submissions.append(len(commands))
        commands = commands.copy()
        commands["session_id"] = self._session
        commands["request_id"] = np.arange(self._requests + 1, self._requests + 1 + len(commands), dtype=np.uint64)
        self._requests += len(commands)
        return self._apply(commands, details)

    def assets(self) -> list[Asset]:
        """Return what a client returns."""
        return [
            Asset(int(row["asset"]), unpack_symbol(row["symbol"]), int(row["decimals"]))
            for row in self.engine.inspect.assets()
        ]

    def instruments(self) -> list[Instrument]:
        """Return what a client returns."""
        assets = {asset.id: asset for asset in self.assets()}
        numbers = ("lot_units", "scale_units", "max_price_ticks", "max_quantity_lots", "status")
        return [
            Instrument(
                int(row["instrument"]),
                unpack_symbol(row["symbol"]),
                assets[int(row["base_asset"])],
                assets[int(row["quote_asset"])],
                *(int(row[name]) for name in numbers),
            )
            for row in self.engine.inspect.instruments()
        ]

    def poll(self, timeout: float, /) -> Records:
        if self._read == len(self._events):
            return np.zeros(0, dtype=EVENT)
        self._read += 1
        return self._events[self._read - 1]

    def alter(self, batch: int, column: str, row: int, change: int) -> None:
        """Change one field of an event that poll() will return."""
        self._events[batch][column][row] += change

    def drop(self, batch: int, row: int) -> None:
        """Remove an event that poll() should return."""
        self._events[batch] = np.delete(self._events[batch], row)

    def rows(self, kind: int) -> tuple[int, list[int]]:
        """Return the last batch that has events of a kind, and their positions in it."""
        for batch in range(len(self._events) - 1, -1, -1):
            rows = np.flatnonzero(self._events[batch]["kind"] == kind).tolist()
            if rows:
                return batch, rows
        raise AssertionError(f"no events of kind {kind}")

    def _apply(self, commands: Records, details: Records) -> Records:
        result = self.engine.apply(commands, 1_000_000_000 + self.engine.sequence, details)
        self._events.append(result.events.copy())
        outcomes: Records = result.outcomes
        return outcomes

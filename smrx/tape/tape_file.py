"""Read and write tape files: the commands that set up a market, then the flow.

A file has a 64-byte header and command records, little-endian. Session and request ids are 0; the sender sets them. A
checksum covers header and records.
"""

import struct
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError
from smrx.wire.codes import CommandKind
from smrx.wire.records import COMMAND, INSTRUMENT_COMMAND, unpack_symbol

MAGIC: Final = b"SMRXTAPE"
VERSION: Final = 1
#: magic, version, setup commands, flow commands, seed, trades of the flow, xxh3 of all other bytes, 16 spare bytes.
_HEADER: Final = struct.Struct("<8sIIQQQQ16x")
_CHECKSUM_AT: Final = 40

Commands = NDArray[np.void]


class Tape(NamedTuple):
    """The commands of a tape: the setup of its market, and the flow."""

    name: str
    setup: Commands
    commands: Commands
    #: Trades that the flow causes on an empty market; -1 if not known.
    trades: int
    seed: int = 0

    @property
    def instrument(self) -> int:
        return int(self._listing["instrument"])

    @property
    def symbol(self) -> str:
        return unpack_symbol(int(self._listing["symbol"]))

    @property
    def accounts(self) -> list[int]:
        """The accounts that trade, in the order in which the setup opens them."""
        opened = self.setup[self.setup["kind"] == CommandKind.OPEN_ACCOUNT]
        return [int(account) for account in opened["account"]]

    @property
    def _listing(self) -> np.void:
        listed = self.setup[self.setup["kind"] == CommandKind.ADD_INSTRUMENT]
        record: np.void = listed.view(INSTRUMENT_COMMAND)[0]
        return record

    def first(self, commands: int | None) -> "Tape":
        """Return the tape with the first `commands` flow commands; its number of trades is not known (-1)."""
        if commands is None or commands >= len(self.commands):
            return self
        return self._replace(commands=self.commands[:commands], trades=-1)


def encode(tape: Tape) -> bytes:
    """Return the bytes of a tape file."""
    records = tape.setup.tobytes() + tape.commands.tobytes()
    return _header(tape, _checksum(_header(tape, 0), records)) + records


def write(path: str | Path, tape: Tape) -> None:
    """Write a tape file; raises TapeError."""
    try:
        Path(path).write_bytes(encode(tape))
    except OSError as error:
        raise TapeError(f"{path}: cannot be written: {error.strerror}") from None


def read(path: str | Path) -> Tape:
    """Return the tape in a file; raises TapeError if the file is not exactly as write() wrote it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TapeError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise TapeError(f"{path}: not a tape file (`smrx tape generate` writes them)")
    _, version, setup, commands, seed, trades, checksum = _HEADER.unpack_from(data)
    if version != VERSION:
        raise TapeError(f"{path}: tape version {version} is not supported; expected version {VERSION}")
    expected = _HEADER.size + (setup + commands) * COMMAND.itemsize
    if len(data) != expected:
        raise TapeError(f"{path}: the file is damaged: {len(data)} bytes instead of {expected}")
    header = data[:_CHECKSUM_AT] + bytes(8) + data[_CHECKSUM_AT + 8 : _HEADER.size]
    found = _checksum(header, data[_HEADER.size :])
    if found != checksum:
        raise TapeError(f"{path}: the file is damaged: checksum {found:016x} instead of {checksum:016x}")
    records = np.frombuffer(data, dtype=COMMAND, offset=_HEADER.size)
    if not np.any(records[:setup]["kind"] == CommandKind.ADD_INSTRUMENT):
        raise TapeError(f"{path}: the tape's setup lists no instrument")
    return Tape(Path(path).name, records[:setup].copy(), records[setup:].copy(), trades, seed)


def _header(tape: Tape, checksum: int) -> bytes:
    return _HEADER.pack(MAGIC, VERSION, len(tape.setup), len(tape.commands), tape.seed, tape.trades, checksum)


def _checksum(header: bytes, records: bytes) -> int:
    digest = xxhash.xxh3_64(header)
    digest.update(records)
    return digest.intdigest()

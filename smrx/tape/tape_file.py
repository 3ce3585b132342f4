"""Read and write tape files: the commands that set up a market, then the flow.

A file has a 64-byte header, the command records of the setup and of the flow, and then the details of the setup's and
of the flow's commands, little-endian. Session and request ids are 0; the sender sets them. A checksum covers header and
records.
"""

import struct
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from smrx.tape.tape_error import TapeError
from smrx.wire.codes import CommandKind
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND, DETAILS, INSTRUMENT_DETAILS, unpack_symbol

MAGIC: Final = b"SMRXTAPE"
VERSION: Final = 2
#: magic, version, setup commands, flow commands, seed, trades of the flow, xxh3 of all other bytes, details of the
#: setup, details of the flow, 8 spare bytes.
_HEADER: Final = struct.Struct("<8sIIQQQQII8x")
_CHECKSUM_AT: Final = 40

Commands = NDArray[np.void]


class Tape(NamedTuple):
    """The commands of a tape: the setup of its market, and the flow."""

    name: str
    setup: CommandList
    flow: CommandList
    #: Trades that the flow causes on an empty market; -1 if not known.
    trades: int
    seed: int = 0

    @property
    def commands(self) -> Commands:
        """The command records of the flow."""
        return self.flow.records

    @property
    def instrument(self) -> int:
        return int(self._listing["instrument"])

    @property
    def symbol(self) -> str:
        details = self.setup.details.view(INSTRUMENT_DETAILS)[int(self._listing["details"]) - 1]
        return unpack_symbol(details["symbol"])

    @property
    def accounts(self) -> list[int]:
        """The accounts that trade, in the order in which the setup opens them."""
        records = self.setup.records
        opened = records[records["kind"] == CommandKind.OPEN_ACCOUNT]
        return [int(account) for account in opened["account"]]

    @property
    def _listing(self) -> np.void:
        records = self.setup.records
        record: np.void = records[records["kind"] == CommandKind.ADD_INSTRUMENT][0]
        return record

    def first(self, commands: int | None) -> "Tape":
        """Return the tape with the first `commands` flow commands; its number of trades is not known (-1)."""
        if commands is None or commands >= len(self.commands):
            return self
        return self._replace(flow=self.flow.part(0, commands), trades=-1)


def encode(tape: Tape) -> bytes:
    """Return the bytes of a tape file."""
    lists = (tape.setup, tape.flow)
    records = b"".join(
        part.tobytes() for part in (*(found.records for found in lists), *(found.details for found in lists))
    )
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
    _, version, setup, commands, seed, trades, checksum, setup_details, details = _HEADER.unpack_from(data)
    if version != VERSION:
        raise TapeError(f"{path}: tape version {version} is not supported; expected version {VERSION}")
    end = _HEADER.size + (setup + commands) * COMMAND.itemsize
    expected = end + (setup_details + details) * DETAILS.itemsize
    if len(data) != expected:
        raise TapeError(f"{path}: the file is damaged: {len(data)} bytes instead of {expected}")
    header = data[:_CHECKSUM_AT] + bytes(8) + data[_CHECKSUM_AT + 8 : _HEADER.size]
    found = _checksum(header, data[_HEADER.size :])
    if found != checksum:
        raise TapeError(f"{path}: the file is damaged: checksum {found:016x} instead of {checksum:016x}")
    records = np.frombuffer(data[_HEADER.size : end], COMMAND)
    named = np.frombuffer(data[end:], DETAILS)
    lists = (
        CommandList(records[:setup].copy(), named[:setup_details].copy()),
        CommandList(records[setup:].copy(), named[setup_details:].copy()),
    )
    for part in lists:
        most = int(part.records["details"].max(initial=0))
        if most > len(part.details):
            raise TapeError(f"{path}: a command names details {most} of {len(part.details)}")
    listed = lists[0].records[lists[0].records["kind"] == CommandKind.ADD_INSTRUMENT]
    if not len(listed) or not listed[0]["details"]:
        raise TapeError(f"{path}: the tape's setup lists no instrument")
    return Tape(Path(path).name, *lists, trades, seed)


def _header(tape: Tape, checksum: int) -> bytes:
    return _HEADER.pack(
        MAGIC, VERSION, len(tape.setup.records), len(tape.commands), tape.seed, tape.trades, checksum,
        len(tape.setup.details), len(tape.flow.details),
    )  # fmt: skip


def _checksum(header: bytes, records: bytes) -> int:
    digest = xxhash.xxh3_64(header)
    digest.update(records)
    return digest.intdigest()

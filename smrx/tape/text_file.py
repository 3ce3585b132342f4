"""Read a text file that is plain or compressed, and report what cannot be read with the lines before it.

gzip, xz and zstd are detected by the first bytes, not by the name. A UTF-8 byte-order mark is skipped, and line ends
may be LF, CRLF or CR. zstd needs Python 3.14 or the package zstandard. Called by lobster.py.
"""

import importlib
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from smrx.tape.tape_error import TapeError

#: Compressed bytes that are decompressed at once; short, so that the count of lines before damage is close.
_PIECE_BYTES: Final = 1 << 16
_ZLIB_GZIP: Final = 31  # the largest window, with the header of gzip
_UTF_8_MARK: Final = b"\xef\xbb\xbf"
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
#: Formats that are named but not read.
_ARCHIVES: Final = {b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z", b"BZh": "bzip2"}


def read_lines(path: Path) -> list[str]:
    """Return the lines of an ASCII file without their ends; raises TapeError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TapeError(f"{path}: cannot be read: {error.strerror}") from None
    for first, kind in _ARCHIVES.items():
        if data.startswith(first):
            raise TapeError(f"{path}: a {kind} file; unpack it first (plain text, gzip, xz and zstd are read)")
    for first, name, decompressor in _COMPRESSIONS:
        if data.startswith(first):
            data = _decompress(path, data, name, decompressor(path))
            break
    return _decode(path, data).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _zstd(path: Path) -> Callable[[], Any]:
    """Return what makes a decompressor of zstd; raises TapeError if none is installed."""
    for module in ("compression.zstd", "zstandard"):
        try:
            found: Any = importlib.import_module(module)
        except ImportError:
            continue
        return lambda: found.ZstdDecompressor() if module == "compression.zstd" else _zstandard(found)
    raise TapeError(f'{path}: a zstd file; install the extra that reads it: pip install "smrx[zstd]"')


def _zstandard(module: Any) -> Any:
    return module.ZstdDecompressor().decompressobj()


#: First bytes, name, and a function that returns what makes a decompressor.
_COMPRESSIONS: Final[tuple[tuple[bytes, str, Callable[[Path], Callable[[], Any]]], ...]] = (
    (b"\x1f\x8b", "gzip", lambda _: lambda: zlib.decompressobj(_ZLIB_GZIP)),
    (b"\xfd7zXZ\0", "xz", lambda _: lzma.LZMADecompressor),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)


def _decompress(path: Path, data: bytes, name: str, make: Callable[[], Any]) -> bytes:
    """Return the content of a compressed file, which may consist of several members or frames; raises TapeError."""
    pieces: list[bytes] = []
    start = 0
    try:
        while data[start:].strip(b"\0"):  # zeros after the last member are padding
            decompressor = make()
            while not decompressor.eof:
                piece = data[start : start + _PIECE_BYTES]
                if not piece:
                    raise EOFError("it ends before its end mark")
                pieces.append(decompressor.decompress(piece))
                start += len(piece)
            start -= len(decompressor.unused_data)
    except Exception as error:  # noqa: BLE001 - zstandard and compression.zstd have exceptions of their own
        lines = sum(piece.count(b"\n") for piece in pieces)
        raise TapeError(
            f"{path}: the {name} file is damaged or incomplete: {error}; {lines} lines could be read before that"
        ) from None
    return b"".join(pieces)


def _decode(path: Path, data: bytes) -> str:
    if data.startswith(_UTF_16_MARKS):
        raise TapeError(f"{path}: not a text file in ASCII or UTF-8: it is UTF-16; save it as UTF-8")
    text = data.removeprefix(_UTF_8_MARK)
    try:
        return text.decode("ascii")
    except UnicodeDecodeError as error:
        before = text.count(b"\n", 0, error.start)
        column = text.count(b",", text.rfind(b"\n", 0, error.start) + 1, error.start) + 1
        raise TapeError(
            f"{path}: line {before + 1}, column {column}: not a text file in ASCII: byte 0x{text[error.start]:02x} "
            f"(plain text, gzip, xz and zstd are read)"
        ) from None

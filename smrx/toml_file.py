"""Read a TOML file written by people: one sentence for anything that is wrong with it, and in little time.

Knows nothing of what the file means. Called for cluster files, market files and key files.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

#: Far more than a cluster file has, and enough for a market of tens of thousands of accounts.
MAX_BYTES: Final = 4 << 20
#: Parts of one dotted key. The time that Python's parser takes grows with the square of their number.
MAX_KEY_PARTS: Final = 32
#: An integer has at most so many digits: far more than any field takes, few enough to be printed.
_MAX_INTEGER_BITS: Final = 256
#: A key with too many parts, or a string, in which dots mean nothing.
_KEY_PART: Final = r"""(?:"[^"\n]*+"|'[^'\n]*+'|[\w\-]++)[ \t]*+\.[ \t]*+"""
_STRING: Final = r""""[^"\n]*+"|'[^'\n]*+'"""
_LONG_KEY: Final = re.compile(rf"(?<![\w\-])(?P<key>(?:{_KEY_PART}){{{MAX_KEY_PARTS}}})|{_STRING}")


class TomlFileError(Exception):
    """The file cannot be read; the message names it and is one sentence."""


def read(path: str | Path, what: str) -> dict[str, Any]:
    """Return the document in a file; `what` names it in errors, as in "the configuration". Raises TomlFileError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TomlFileError(f"{path}: cannot read {what}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise TomlFileError(f"{path}: {what} is longer than {MAX_BYTES >> 20} MiB")
    try:
        # utf-8-sig skips the byte-order mark that some editors write.
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise TomlFileError(f"{path}: {what} is not UTF-8 text") from None
    return parse(text, str(path), what)


def parse(text: str, source: str, what: str) -> dict[str, Any]:
    """Return the document in a text; `source` and `what` name it in errors. Raises TomlFileError."""
    prefix = f"{source}: {what} is not valid TOML: "
    long_key = next((found for found in _LONG_KEY.finditer(text) if found["key"]), None)
    if long_key is not None:
        line = text.count("\n", 0, long_key.start()) + 1
        raise TomlFileError(f"{prefix}a key of more than {MAX_KEY_PARTS} parts (at line {line})")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise TomlFileError(f"{prefix}the nesting is too deep") from None
    except ValueError as error:
        # Besides the module's own error: numbers of thousands of digits.
        problem = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "an integer has too many digits"
        raise TomlFileError(f"{prefix}{problem}") from None
    _check_integers(document, prefix)
    return document


def _check_integers(document: dict[str, Any], prefix: str) -> None:
    """Refuse integers that cannot be printed: hexadecimal ones may have any number of digits."""
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
            raise TomlFileError(f"{prefix}an integer has too many digits")

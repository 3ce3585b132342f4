"""The recordings that tests use: a synthetic one, and real ones if there are any.

Real recordings are not part of the project. They are read from the folder in SMRX_TAPES, or from shared/tapes beside
the project. Without real recordings the tests use the synthetic one alone.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

from smrx.tape import lobster
from smrx.tape.lobster import Recording
from tests.tape import synthetic_recording

SYNTHETIC: Final = "synthetic"
_PROJECT: Final = Path(__file__).resolve().parents[2]
_MARK: Final = "_message_"


def found() -> list[str]:
    """Return "synthetic" and the path of each real message file with an orderbook file beside it."""
    return [SYNTHETIC, *map(str, _real())]


def orderbook_of(messages: Path) -> Path:
    """Return the path of the orderbook file of a message file."""
    return messages.with_name(messages.name.replace(_MARK, "_orderbook_"))


@contextmanager
def files(name: str) -> Iterator[tuple[Path, Path]]:
    """Provide the message file and the orderbook file of one of found()."""
    if name == SYNTHETIC:
        with tempfile.TemporaryDirectory() as folder:
            made = synthetic_recording.write(Path(folder))
            yield made.messages, made.orderbook
    else:
        yield Path(name), orderbook_of(Path(name))


@lru_cache(maxsize=2)
def read(name: str) -> Recording:
    """Read one of found(), once for all tests. The caller must not change it."""
    with files(name) as (messages, orderbook):
        return lobster.read(messages, orderbook)


def _real() -> list[Path]:
    folder = Path(os.environ.get("SMRX_TAPES") or _PROJECT.parent / "shared" / "tapes")
    candidates = sorted(path for path in folder.rglob(f"*{_MARK}*") if path.name.endswith((".csv", ".csv.gz")))
    return [path for path in candidates if orderbook_of(path).is_file()]

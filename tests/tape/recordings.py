"""The recordings a test runs over: a synthetic one, and real ones where they are found.

Real ones are not part of the project. They are looked for in the folder SMRX_TAPES names, else in shared/tapes beside
the project; without any, the same tests run over the synthetic recording alone.
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
from tests.tape import synthetic

SYNTHETIC: Final = "synthetic"
_PROJECT: Final = Path(__file__).resolve().parents[2]
_MARK: Final = "_message_"


def found() -> list[str]:
    """`synthetic`, then the path of each real message file that has its orderbook file beside it."""
    return [SYNTHETIC, *map(str, _real())]


def orderbook_of(messages: Path) -> Path:
    """The orderbook file that belongs to a message file."""
    return messages.with_name(messages.name.replace(_MARK, "_orderbook_"))


@contextmanager
def files(name: str) -> Iterator[tuple[Path, Path]]:
    """Message and orderbook file of one of found()."""
    if name == SYNTHETIC:
        with tempfile.TemporaryDirectory() as folder:
            made = synthetic.write(Path(folder))
            yield made.messages, made.orderbook
    else:
        yield Path(name), orderbook_of(Path(name))


@lru_cache(maxsize=2)
def read(name: str) -> Recording:
    """One of found(), read once for all tests; not to be changed."""
    with files(name) as (messages, orderbook):
        return lobster.read(messages, orderbook)


def _real() -> list[Path]:
    folder = Path(os.environ.get("SMRX_TAPES") or _PROJECT.parent / "shared" / "tapes")
    candidates = sorted(path for path in folder.rglob(f"*{_MARK}*") if path.name.endswith((".csv", ".csv.gz")))
    return [path for path in candidates if orderbook_of(path).is_file()]

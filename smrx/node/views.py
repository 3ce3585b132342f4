"""Answer listings that are longer than a page: a view is a whole listing, as it was at one command.

A forked child writes the rows once (child_file.py), while the node continues; pages are slices of what it wrote, so all
pages of a listing are of the same state. A view can be read by its owner only, who asked for it. Owns the views: at
most MAX_VIEWS, of MAX_BYTES in all, each for HELD_SECONDS after it was last read. An owner's next view closes its last
one, and one that was read to its end is closed when another needs its place. A fork blocks the loop for a moment, so
the next waits a hundred times as long. Called by the admin service.
"""

import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smrx.consensus.large_pages import LargePages
from smrx.node.child_file import ChildFile, Write

MAX_VIEWS: Final = 4
#: Of all views. A million orders take 165 MB.
MAX_BYTES: Final = 1 << 30
HELD_SECONDS: Final = 30.0
#: A child that has not ended after this time is killed.
CHILD_SECONDS: Final = 30.0
#: After a fork the next one waits so many times as long as the loop was blocked.
_PAUSES: Final = 100


class Slice(NamedTuple):
    """Rows of a view, and whether there are more behind them."""

    rows: NDArray[Any]
    more: bool
    #: The command after which the listing was taken.
    sequence: int


class Waiting(NamedTuple):
    """The rows are not written yet: ask again in a moment."""


class Refused(NamedTuple):
    """There is no such view, or there can be none now: why, as one sentence for people."""

    reason: str


class _View:
    def __init__(self, owner: Hashable, dtype: "np.dtype[Any]", sequence: int, file: ChildFile, now: float) -> None:
        self.owner = owner
        self.dtype = dtype
        self.sequence = sequence
        self.file = file
        self.read_at = now
        self.read_to_the_end = False


class Views:
    """The views that are held."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, pages: LargePages | None = None) -> None:
        """`pages`: the large pages of this process; a listing waits for them."""
        self._clock = clock
        self._pages = pages
        self._views: dict[str, _View] = {}
        self._not_before = 0.0
        #: Seconds that the longest fork blocked the loop.
        self.longest_pause_s = 0.0

    def open(
        self,
        owner: Hashable,
        dtype: "np.dtype[Any]",
        rows: Callable[[], Iterable[NDArray[Any]]],
        excluded: Iterable[NDArray[Any]],
        sequence: int,
    ) -> str | Refused:
        """Take a listing of the state as it is now; return the cursor that names it.

        `rows` runs in the child and yields the rows in blocks of `dtype`; `excluded` are arrays that it does not read.
        An owner's earlier view is closed.
        """
        self.poll()
        now = self._clock()
        for cursor, view in list(self._views.items()):
            if view.owner == owner or (view.read_to_the_end and len(self._views) >= MAX_VIEWS):
                self._close(cursor)
        if self._pages is not None and not self._pages.is_ready(now):
            return Refused("memory is prepared for another listing; ask again in a moment")
        if now < self._not_before or any(not view.file.poll() for view in self._views.values()):
            return Refused("another listing is being taken; ask again in a moment")
        if len(self._views) >= MAX_VIEWS:
            return Refused(f"{MAX_VIEWS} long listings are being read; ask again in {HELD_SECONDS:g} s")
        left = MAX_BYTES - sum(view.file.size for view in self._views.values())

        def produce(write: Write) -> None:
            for block in rows():
                write(np.ascontiguousarray(block, dtype).view(np.uint8))

        try:
            file = ChildFile(produce, excluded, max_bytes=left, seconds=CHILD_SECONDS, pages=self._pages)
        except OSError as error:
            return Refused(f"no process can be started for the listing: {error.strerror}")
        self._not_before = self._clock() + _PAUSES * file.pause_s
        self.longest_pause_s = max(self.longest_pause_s, file.pause_s)
        # 128 random bits: a cursor cannot be guessed, and is of no use to another owner.
        cursor = secrets.token_hex(16)
        self._views[cursor] = _View(owner, dtype, sequence, file, now)
        return cursor

    def read(
        self, owner: Hashable, cursor: str, offset: int, limit: int, dtype: "np.dtype[Any] | None" = None
    ) -> Slice | Waiting | Refused:
        """Return up to `limit` rows of a view from row `offset` on; with `dtype` only of a view of such rows."""
        self.poll()
        view = self._views.get(cursor)
        if view is None or view.owner != owner or (dtype is not None and view.dtype != dtype):
            return Refused("the listing is not held any more; ask from the beginning")
        view.read_at = self._clock()
        ended = view.file.poll()
        if view.file.error is not None:
            reason = view.file.error
            self._close(cursor)
            return Refused(f"the listing could not be taken: {reason}")
        written = view.file.size // view.dtype.itemsize
        if not ended and written <= offset + limit:
            return Waiting()
        data = view.file.read(offset * view.dtype.itemsize, limit * view.dtype.itemsize)
        whole = len(data) // view.dtype.itemsize
        rows = np.frombuffer(data, view.dtype, whole)
        view.read_to_the_end |= offset + whole >= written
        return Slice(rows, offset + whole < written, view.sequence)

    def poll(self) -> None:
        """Notice children that have ended, and close what was not read for a while. Call it in every turn."""
        now = self._clock()
        for cursor, view in list(self._views.items()):
            view.file.poll()
            if now - view.read_at > HELD_SECONDS:
                self._close(cursor)

    def close(self) -> None:
        """Close all views."""
        for cursor in list(self._views):
            self._close(cursor)

    def _close(self, cursor: str) -> None:
        self._views.pop(cursor).file.close()

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

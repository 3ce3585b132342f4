"""Events as columns: one contiguous numpy array a field, for consumers that compute over many events at once.

Names, types and meanings are those of EVENT (smrx/wire/records.py): `sequence` and `command_sequence` uint64,
`time_ns` int64 nanoseconds since 1970 by the engine's clock, `price_ticks` int64 in ticks, `quantity_lots`, `cum_lots`
and `leaves_lots` int64 in lots (of a TRADE the fees of taker and maker, in quote units), `kind` an EventKind. Every
array has shape (n,), all in the order of the events; they are copies, the caller's own.

Called by consumers of the feed; nothing in the exchange depends on it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from smrx.feed.subscriber import Subscriber
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT

Columns = dict[str, NDArray[np.generic]]

#: Every field of an event, in the order of the record.
FIELDS: Final[tuple[str, ...]] = tuple(EVENT.names or ())


def columns(
    events: NDArray[np.void], fields: Sequence[str] | None = None, kinds: Iterable[EventKind] | None = None
) -> Columns:
    """Return the named fields of events (records of EVENT; all fields by default), of the kinds given or of all.

    Raises ValueError for a field that events do not have.
    """
    names = FIELDS if fields is None else tuple(fields)
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"expected fields of an event ({', '.join(FIELDS)}), found {name!r}")
    if kinds is not None:
        events = _of_kinds(events, kinds)
    return {name: np.array(events[name], order="C", copy=True) for name in names}


def batches(
    subscriber: Subscriber,
    *,
    fields: Sequence[str] | None = None,
    kinds: Iterable[EventKind] | None = None,
    timeout: float = 1.0,
) -> Iterator[Columns]:
    """Yield the columns of what arrives, in order and without holes, until nothing came for `timeout` seconds.

    A batch is whatever has become contiguous; one without an event of the kinds asked for is left out. Raises what
    Subscriber.poll() raises, and ValueError as columns() does.
    """
    wanted = None if kinds is None else tuple(kinds)
    while len(events := subscriber.poll(timeout)):
        chosen = events if wanted is None else _of_kinds(events, wanted)
        if len(chosen):
            yield columns(chosen, fields)


def _of_kinds(events: NDArray[np.void], kinds: Iterable[EventKind]) -> NDArray[np.void]:
    chosen: NDArray[np.void] = events[np.isin(events["kind"], [int(kind) for kind in kinds])]
    return chosen

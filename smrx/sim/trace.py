"""Record what happens in a run: a digest that identifies the run, and text for a reader.

Recording appends a tuple; the text is made on request, from the frames that were sent. Every part of the simulator
records here; the trace decides nothing.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import xxhash

from smrx.consensus import messages
from smrx.consensus.messages import AppendEntries, Hello
from smrx.sim.scheduler import Scheduler
from smrx.sim.versions import NEXT_VERSION, EntryFormats, mixed_versions

#: Lines that lines() returns by default: the last ones before the end of the run.
LAST_LINES: Final = 120

_MESSAGE: Final = "message"


class Trace:
    """The events of one run, in order."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._events: list[tuple[Any, ...]] = []

    def message(self, source: int, target: int, frame: bytes) -> None:
        """Record that node `target` reads a message of node `source`."""
        self._events.append((self._scheduler.clock.time, _MESSAGE, source, target, frame))

    def note(self, text: str, *values: object) -> None:
        """Record any other event. `text` is a format string for the values."""
        self._events.append((self._scheduler.clock.time, text, *values))

    def __len__(self) -> int:
        return len(self._events)

    def digest(self) -> str:
        """Return a hash of all events and their times; runs with equal hashes are the same run."""
        return xxhash.xxh3_64_hexdigest(msgspec.msgpack.encode(self._events))

    def lines(self, limit: int | None = LAST_LINES) -> list[str]:
        """Return the last `limit` lines of text, all for None. Keep-alive messages are left out."""
        with mixed_versions(EntryFormats()) as versions:
            versions.select(NEXT_VERSION)
            lines = list(self._lines())
        if limit is None or len(lines) <= limit:
            return lines
        return [f"... {len(lines) - limit} earlier lines; --verbose shows them", *lines[-limit:]]

    def _lines(self) -> Iterator[str]:
        started = self._events[0][0] if self._events else 0.0
        for time, text, *values in self._events:
            shown = _message_text(*values) if text == _MESSAGE else text.format(*values)
            if shown:
                yield f"{time - started:9.4f}  {shown}"


def _message_text(source: int, target: int, frame: bytes) -> str:
    """Return a message as one line, or an empty string for a keep-alive message."""
    envelope = messages.decode(frame)
    if isinstance(envelope, str):
        return f"{source} -> {target}  {envelope}"
    body = envelope.body
    if isinstance(body, Hello):
        return ""
    flags = " learner" * bool(envelope.flags & messages.LEARNER) + " fenced" * bool(envelope.flags & messages.FENCED)
    return f"{source} -> {target}  term {envelope.term}{flags}  {_body_text(body)}"


def _body_text(body: messages.Body) -> str:
    if isinstance(body, AppendEntries):
        entries = body.entries
        after = "no base" if body.prev_index is None else f"after ({body.prev_index}, term {body.prev_term})"
        carried = "no entries"
        if entries:
            carried = f"entries {entries[0][1]}..{entries[-1][1]} of terms {entries[0][2]}..{entries[-1][2]}"
        return f"append {after}, commit {body.commit_index}, stream {body.stream}, {carried}"
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    shown = ", ".join(
        f"{name} {f'{len(value)} bytes' if isinstance(value, bytes) else value}" for name, value in fields.items()
    )
    return f"{type(body).__name__} {shown}"

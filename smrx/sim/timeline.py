"""What happened in a run: a digest that two equal runs share, and, when it is wanted, text that a person can follow.

Recording costs an append; text is made afterwards, from the bytes that travelled. Called by every part of the
simulator; decides nothing.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import xxhash

from smrx.consensus import messages
from smrx.consensus.messages import AppendEntries, Hello
from smrx.sim.versions import NEXT, Formats, several
from smrx.sim.world import World

#: Of a failed run this many lines before the end are shown unless all are asked for.
LINES: Final = 120

_MESSAGE: Final = "message"


class Timeline:
    """The events of one run, in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._events: list[tuple[Any, ...]] = []

    def message(self, source: int, target: int, frame: bytes) -> None:
        """A node takes a message of another."""
        self._events.append((self._world.clock.time, _MESSAGE, source, target, frame))

    def note(self, text: str, *values: object) -> None:
        """Anything else; `text` is filled in with the values when somebody reads it."""
        self._events.append((self._world.clock.time, text, *values))

    def __len__(self) -> int:
        return len(self._events)

    def digest(self) -> str:
        """The same for runs in which the same happened at the same times."""
        return xxhash.xxh3_64_hexdigest(msgspec.msgpack.encode(self._events))

    def lines(self, most: int | None = LINES) -> list[str]:
        """The run as text, without what is only routine; the last `most` lines of it, None for all."""
        with several(Formats()) as versions:
            versions.view(NEXT)
            lines = list(self._lines())
        if most is None or len(lines) <= most:
            return lines
        return [f"... {len(lines) - most} earlier lines; --verbose shows them", *lines[-most:]]

    def _lines(self) -> Iterator[str]:
        started = self._events[0][0] if self._events else 0.0
        for time, text, *values in self._events:
            shown = _message_text(*values) if text == _MESSAGE else text.format(*values)
            if shown:
                yield f"{time - started:9.4f}  {shown}"


def _message_text(source: int, target: int, frame: bytes) -> str:
    """A message as one line; empty for what only keeps a connection warm."""
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

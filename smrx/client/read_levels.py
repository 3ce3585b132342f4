"""Name how new the state has to be that a read shows: the levels of the admin protocol, and their bounds.

Pure. Used by the operations that read and by the command line.
"""

from dataclasses import dataclass
from typing import TypeVar, get_args

import msgspec

from smrx.client.client_errors import InvalidValue
from smrx.wire import admin

R = TypeVar("R", bound=admin.ReadRequest)

_NAMES = get_args(admin.ReadLevel)


@dataclass(frozen=True, kw_only=True)
class Stale:
    """The state of any node, at most so many seconds old and not before a command; by default however old it is."""

    max_age_s: float | None = None
    min_sequence: int = 0


#: "linearizable": with everything that any client had an answer to when the read began; needs a leader with a majority.
#: "leader": as the leader has it, which may have been deposed. "any" or Stale(): as any node has it.
Level = admin.ReadLevel | Stale


def at_level(request: R, level: Level) -> R:
    """Return the request with a level. Raises InvalidValue."""
    if isinstance(level, Stale):
        if level.min_sequence < 0 or (level.max_age_s is not None and not level.max_age_s >= 0):
            raise InvalidValue(f"level: expected bounds of at least 0, found {level}")
        age_ms = None if level.max_age_s is None else 1000 * level.max_age_s
        return msgspec.structs.replace(request, level="any", max_age_ms=age_ms, min_sequence=level.min_sequence)
    if level not in _NAMES:
        raise InvalidValue(f"level: expected {', '.join(_NAMES)} or Stale(), found {level!r}")
    return msgspec.structs.replace(request, level=level)

"""The traits of commands as constants and an array by kind: Numba supports IntEnum, not IntFlag and not mappings.

Owns nothing else. Used by the kernels that ask what a kind of command is, see codes.CommandTraits.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import inlined
from smrx.wire.codes import COMMAND_TRAITS, UNKNOWN_KIND_TRAITS, CommandTraits

PLACES: Final = int(CommandTraits.PLACES)
VENUE_ONLY: Final = int(CommandTraits.VENUE_ONLY)
PASSES_KILL: Final = int(CommandTraits.PASSES_KILL)
NUMBERED: Final = int(CommandTraits.NUMBERED)
NAMES_ACCOUNT: Final = int(CommandTraits.NAMES_ACCOUNT)
ACTIVE_ACCOUNT: Final = int(CommandTraits.ACTIVE_ACCOUNT)
MAY_HAVE_DETAILS: Final = int(CommandTraits.MAY_HAVE_DETAILS)
MUST_HAVE_DETAILS: Final = int(CommandTraits.MUST_HAVE_DETAILS)
#: Of a kind that does not exist.
UNKNOWN: Final = 1 << 31

#: By the 256 values of COMMAND.kind.
TRAITS: Final = np.full(256, int(UNKNOWN_KIND_TRAITS) | UNKNOWN, np.int64)
for _kind, _traits in COMMAND_TRAITS.items():
    TRAITS[_kind] = int(_traits)


@inlined
def has_trait(kind: Any, trait: Any) -> Any:
    """Whether a kind of command has a trait, or one of several."""
    return (TRAITS[kind] & trait) != 0

"""The traits of commands and the permissions that they need, as constants and as arrays by kind.

Numba supports IntEnum, not IntFlag and not mappings. Owns nothing else. Used by the kernels that ask what a kind of
command is, see codes.CommandTraits and codes.COMMAND_PERMISSIONS.
"""

from typing import Any, Final

import numpy as np

from smrx.engine.kernels.jit import inlined
from smrx.wire.codes import COMMAND_PERMISSIONS, COMMAND_TRAITS, UNKNOWN_KIND_TRAITS, CommandTraits, Permission

PLACES: Final = int(CommandTraits.PLACES)
VENUE_ONLY: Final = int(CommandTraits.VENUE_ONLY)
LEADER: Final = int(CommandTraits.LEADER)
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

TRADE: Final = int(Permission.TRADE)
ADMINISTER: Final = int(Permission.ADMINISTER)
GATEWAY: Final = int(Permission.GATEWAY)
#: One of the permissions of a kind is needed; an unknown kind has none.
PERMISSIONS: Final = np.zeros(256, np.int64)
for _kind, _permissions in COMMAND_PERMISSIONS.items():
    PERMISSIONS[_kind] = int(_permissions)


@inlined
def has_trait(kind: Any, trait: Any) -> Any:
    """Whether a kind of command has a trait, or one of several."""
    return (TRAITS[kind] & trait) != 0

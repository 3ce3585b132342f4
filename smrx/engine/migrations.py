"""Declare how the state of an earlier version becomes one of this version.

Most changes need nothing here: a field that is added to a record gets 0, and its name and type are part of every
snapshot. What needs a declaration:

- a default that is not 0: DEFAULTS;
- a field or an array that is dropped with its content, that is renamed, that gets another type or another meaning:
  raise LAYOUT_VERSION and add what leads to it to MIGRATIONS.

Record hashes are stored in the records and stay valid: a new field is part of its record's hash only when it is not its
default (state_hash.py has three examples: the extension of an order, the limits of an account, the rules of an
instrument). A migration therefore must not touch a field that is hashed. A change of what is hashed belongs to a new
version of the rules: the engine computes the hashes again when that version takes effect, at the same log position on
every node, and never while a snapshot is read. A reader checks every hash after the migration.

Each version reads the layout version before its own; older migrations may be removed. Called by snapshot.py.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from smrx.engine.state import DEFAULT_CAPACITIES, FIRST_RULES

#: The arrays of a snapshot by name.
Arrays = dict[str, NDArray[Any]]


class Migration(NamedTuple):
    """What leads from one layout version to the next."""

    #: Fields ("balances.rate") and arrays ("transfers") that are dropped, whatever they hold.
    dropped: frozenset[str] = frozenset()
    #: Anything else: gets the arrays, without what is dropped, and returns those of the next version by name. It must
    #: not change those it gets. A field that it leaves out gets its default.
    change: Callable[[Arrays], Arrays] | None = None


#: Raised by 1 for each change that needs a Migration. A reader refuses a snapshot of a later one.
LAYOUT_VERSION: Final = 1
#: By the layout version that each one leads from.
MIGRATIONS: Final[dict[int, Migration]] = {}
#: The defaults that are not 0, by "array.field". They are stored in snapshots and may never change.
DEFAULTS: Final[dict[str, int]] = {
    "core.rules_version": FIRST_RULES,
    **{f"core.{name}": value for name, value in DEFAULT_CAPACITIES.items()},
}

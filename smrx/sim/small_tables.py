"""Give a state machine small tables: a simulated exchange has some accounts and orders, and starts often.

Owns the sizes. Tables grow as in any engine, and no size shows in a hash, a snapshot or an event.
"""

from typing import Any, Final

from smrx.node.replicated_state import ReplicatedState

#: More sessions would give the kept answers address space of their own, which takes longer than all other tables.
_SIZES: Final[dict[str, Any]] = {
    "orders": 128, "levels": 64, "accounts": 8, "balances": 16, "sessions": 8, "instruments": 4, "assets": 4,
    "transfers": 16, "credentials": 4,
}  # fmt: skip


def with_small_tables(state: type[ReplicatedState]) -> type[ReplicatedState]:
    """Return the same state machine, of the same version of the program, with small tables."""
    engine = state.engine_class

    def init(self: Any, **options: Any) -> None:
        engine.__init__(self, **_SIZES, **options)

    small = type(engine.__name__, (engine,), {"__init__": init})
    return type(state.__name__, (state,), {"engine_class": small})


#: The state machine of this version of the program.
SmallState: Final = with_small_tables(ReplicatedState)

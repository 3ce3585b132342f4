"""List the operations that both clients offer as methods.

Each operation is written once, in `Operations`. `Client` offers it as a method, `AsyncClient` as a coroutine, both with
the operation's own name, arguments and docstring.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from smrx.client.io_steps import Steps
from smrx.client.operations import Operations

if TYPE_CHECKING:
    from smrx.client.async_client import AsyncClient
    from smrx.client.blocking_client import Client

P = ParamSpec("P")
T = TypeVar("T")


class _Operation(Generic[P, T]):
    """A placeholder that each client replaces with its own method; __get__ only gives its type to type checkers."""

    def __init__(self, function: Callable[Concatenate[Operations, P], Steps[T]]) -> None:
        self.function = function

    @overload
    def __get__(self, client: "Client", owner: "type[Client]") -> Callable[P, T]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: "type[AsyncClient]") -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: None, owner: "type[Client]") -> Callable[Concatenate["Client", P], T]: ...
    @overload
    def __get__(
        self, client: None, owner: "type[AsyncClient]"
    ) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        raise NotImplementedError


class ClientMethods:
    """Base class of both clients."""

    def __init_subclass__(cls) -> None:
        if ClientMethods not in cls.__bases__:
            return  # A subclass of a client inherits its methods.
        for name, value in vars(ClientMethods).items():
            if isinstance(value, _Operation):
                setattr(cls, name, cls._method(value.function))

    @staticmethod
    def _method(operation: Callable[..., Steps[Any]]) -> Callable[..., Any]:
        """Return the method that runs `operation`."""
        raise NotImplementedError

    # Venue

    open_account = _Operation(Operations.open_account)
    suspend_account = _Operation(Operations.suspend_account)
    resume_account = _Operation(Operations.resume_account)
    set_limits = _Operation(Operations.set_limits)
    add_asset = _Operation(Operations.add_asset)
    add_instrument = _Operation(Operations.add_instrument)
    set_status = _Operation(Operations.set_status)
    set_rules = _Operation(Operations.set_rules)
    set_retention = _Operation(Operations.set_retention)
    set_capacity = _Operation(Operations.set_capacity)
    kill = _Operation(Operations.kill)
    revive = _Operation(Operations.revive)
    apply_market = _Operation(Operations.apply_market)

    # Credentials

    add_credential = _Operation(Operations.add_credential)
    set_credential = _Operation(Operations.set_credential)
    revoke_credential = _Operation(Operations.revoke_credential)
    credentials = _Operation(Operations.credentials)

    # Money

    deposit = _Operation(Operations.deposit)
    withdraw = _Operation(Operations.withdraw)

    # Orders

    place = _Operation(Operations.place)
    place_limit = _Operation(Operations.place_limit)
    place_market = _Operation(Operations.place_market)
    cancel = _Operation(Operations.cancel)
    replace = _Operation(Operations.replace)
    reduce = _Operation(Operations.reduce)
    mass_cancel = _Operation(Operations.mass_cancel)

    # Queries

    balances = _Operation(Operations.balances)
    positions = _Operation(Operations.positions)
    orders = _Operation(Operations.orders)
    depth = _Operation(Operations.depth)
    accounts = _Operation(Operations.accounts)
    account_state = _Operation(Operations.account_state)
    assets = _Operation(Operations.assets)
    instruments = _Operation(Operations.instruments)
    status = _Operation(Operations.status)

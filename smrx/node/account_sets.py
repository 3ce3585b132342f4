"""Say which accounts a private stream is of: a list, all of a firm, or all.

Owns the accounts of firms that were looked for, in the order in which the exchange opened them: an account belongs to
its firm for good, so only new accounts are read. Each call reads a bounded number, so that a turn of the loop stays
short on a market of millions. Changes no state. Called by the publisher.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from smrx.node.principal import Principal
from smrx.wire.codes import Scope

#: Accounts read in one call, at some 5 ns each.
_READ: Final = 1 << 16
#: Firms that are remembered.
_FIRMS: Final = 64

Accounts = NDArray[np.uint32]
#: accounts_of_firm(firm, start, most) returns the firm's accounts among `most` from the one opened as number `start`,
#: and the number to go on with.
FirmReader = Callable[[int, int, int], tuple[Accounts, int]]


class AccountSet(Protocol):
    """The accounts of a private stream."""

    def advance(self) -> bool:
        """Look for accounts that are new; return whether holds() knows all of them."""

    def holds(self, accounts: Accounts) -> NDArray[np.bool_]:
        """Return for each of some accounts whether it is one of them."""


class ListedAccounts:
    """A list of accounts."""

    def __init__(self, accounts: frozenset[int]) -> None:
        """Take the accounts: at least one."""
        self._accounts = np.array(sorted(accounts), np.uint32)

    def advance(self) -> bool:
        """Return True: a list does not change."""
        return True

    def holds(self, accounts: Accounts) -> NDArray[np.bool_]:
        """As AccountSet."""
        return _is_among(accounts, self._accounts)


class AllAccounts:
    """All accounts, the venue's included."""

    def advance(self) -> bool:
        """Return True: nothing has to be known."""
        return True

    def holds(self, accounts: Accounts) -> NDArray[np.bool_]:
        """As AccountSet."""
        return np.ones(len(accounts), np.bool_)


class FirmAccounts:
    """The accounts of a firm, also those that it opens later."""

    def __init__(self, firm: int, read: FirmReader) -> None:
        self._firm = firm
        self._read = read
        self._next = 0
        self._accounts: Accounts = np.empty(0, np.uint32)

    def advance(self) -> bool:
        """As AccountSet; reads a bounded number."""
        start = self._next
        found, self._next = self._read(self._firm, start, _READ)
        if len(found):
            self._accounts = np.union1d(self._accounts, found)
        return self._next - start < _READ

    def holds(self, accounts: Accounts) -> NDArray[np.bool_]:
        """As AccountSet."""
        return _is_among(accounts, self._accounts)


class OwnAccounts:
    """Finds the accounts that a principal acts for; those of a firm are shared by its subscribers."""

    def __init__(self, read: FirmReader) -> None:
        self._read = read
        self._firms: OrderedDict[int, FirmAccounts] = OrderedDict()

    def of(self, principal: Principal) -> AccountSet:
        """Return the accounts of a principal."""
        if principal.scope is Scope.ALL:
            return AllAccounts()
        if principal.scope is Scope.ACCOUNT:
            return ListedAccounts(frozenset({principal.subject}))
        firm = self._firms.pop(principal.subject, None) or FirmAccounts(principal.subject, self._read)
        self._firms[principal.subject] = firm
        if len(self._firms) > _FIRMS:
            self._firms.popitem(last=False)
        return firm


def _is_among(values: Accounts, accounts: Accounts) -> NDArray[np.bool_]:
    """Return which of some values are among accounts in ascending order."""
    if not len(accounts):
        return np.zeros(len(values), np.bool_)
    at = np.searchsorted(accounts, values)
    at[at == len(accounts)] = 0
    found: NDArray[np.bool_] = accounts[at] == values
    return found

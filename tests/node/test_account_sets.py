"""The accounts of a private stream: a list, those of a firm as it opens them, all."""

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.engine import Engine
from smrx.node import account_sets
from smrx.node.account_sets import AllAccounts, FirmAccounts, ListedAccounts, OwnAccounts
from smrx.node.principal import Principal
from smrx.wire.codes import CommandKind, Permission, Scope
from smrx.wire.records import ACCOUNT_COMMAND, COMMAND


def opened(engine: Engine, firms: dict[int, int]) -> None:
    """Open accounts, each of a firm."""
    rows = np.zeros(len(firms) + 1, ACCOUNT_COMMAND)
    rows["kind"], rows["session_id"] = CommandKind.OPEN_ACCOUNT, 1
    rows["account"][1:], rows["firm"][1:] = list(firms), list(firms.values())
    first = int(engine.inspect.counts()["accounts"])
    rows["request_id"] = np.arange(len(rows)) + first - 1
    if first > 1:
        rows = rows[1:]
    else:
        rows["kind"][0] = CommandKind.OPEN_SESSION
    outcomes, _, _ = engine.apply(rows.view(COMMAND), 1)
    assert not outcomes["reason"].any(), outcomes


def held(accounts: account_sets.AccountSet, among: int) -> list[int]:
    found: NDArray[np.uint32] = np.arange(among, dtype=np.uint32)
    return found[accounts.holds(found)].tolist()


def test_accounts_of_a_firm_are_found_as_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_sets, "_READ", 4)
    engine = Engine()
    firm = FirmAccounts(5, engine.inspect.accounts_of_firm)
    opened(engine, {9: 5, 3: 0, 4: 6, 8: 5, 7: 5, 6: 0, 2: 6})
    # A bounded number at a time.
    assert not firm.advance()
    assert firm.advance() or firm.advance()
    assert held(firm, 20) == [7, 8, 9]
    opened(engine, {11: 5, 12: 6})
    assert firm.advance()
    assert held(firm, 20) == [7, 8, 9, 11]


def test_own_accounts_follow_from_the_scope() -> None:
    engine = Engine()
    opened(engine, {3: 5, 4: 5, 6: 0})
    own = OwnAccounts(engine.inspect.accounts_of_firm)
    permissions = Permission.READ
    of_one, of_firm, of_all = (
        own.of(Principal(1, permissions, scope, subject))
        for scope, subject in ((Scope.ACCOUNT, 4), (Scope.FIRM, 5), (Scope.ALL, 0))
    )
    for found, accounts in ((of_one, [4]), (of_firm, [3, 4]), (of_all, [0, 1, 2, 3, 4, 5, 6, 7])):
        assert found.advance()
        assert held(found, 8) == accounts
    # Subscribers of one firm share what was found.
    assert own.of(Principal(2, permissions, Scope.FIRM, 5)) is of_firm
    assert isinstance(of_all, AllAccounts)
    assert isinstance(of_one, ListedAccounts)

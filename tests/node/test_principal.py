"""Which permissions a principal has for which account."""

import pytest

from smrx.node.principal import EVERYTHING, Principal
from smrx.wire.codes import ALL_PERMISSIONS, Permission, Scope

TRADER = Principal(7, Permission.READ | Permission.TRADE, Scope.ACCOUNT, 3)
FIRM = Principal(8, Permission.READ, Scope.FIRM, 20, {3: 20, 4: 20, 5: 21}.get)  # type: ignore[arg-type]
OPERATOR = Principal(9, Permission.ADMINISTER, Scope.ALL, 0)


@pytest.mark.parametrize(
    ("principal", "permission", "account", "may"),
    [
        (TRADER, Permission.TRADE, 3, True),
        (TRADER, Permission.TRADE, 4, False),
        (TRADER, Permission.WITHDRAW, 3, False),
        (TRADER, Permission.READ | Permission.TRADE, 3, True),
        (TRADER, Permission.READ | Permission.WITHDRAW, 3, False),
        # Without an account the request concerns the exchange as a whole.
        (TRADER, Permission.READ, None, False),
        (FIRM, Permission.READ, 3, True),
        (FIRM, Permission.READ, 4, True),
        (FIRM, Permission.READ, 5, False),
        (FIRM, Permission.READ, 6, False),
        (FIRM, Permission.READ, None, False),
        (OPERATOR, Permission.ADMINISTER, None, True),
        (OPERATOR, Permission.ADMINISTER, 5, True),
        (OPERATOR, Permission.TRADE, 5, False),
    ],
)
def test_permission_needs_the_right_account(
    principal: Principal, permission: Permission, account: int | None, may: bool
) -> None:
    assert principal.may(permission, account) == may


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.FIRM])
def test_subject_0_is_no_account_and_no_firm(scope: Scope) -> None:
    """The venue is account 0, and an account without a firm has firm 0: neither is a subject."""
    unknown = Principal(1, ALL_PERMISSIONS, scope, 0)
    assert not any(unknown.may(Permission.READ, account) for account in (0, 1, None))


@pytest.mark.parametrize("permission", list(Permission))
def test_node_without_keys_allows_everything(permission: Permission) -> None:
    assert EVERYTHING.may(permission)
    assert EVERYTHING.may(permission, 5)

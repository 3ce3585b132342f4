"""Credentials: who may do what for which account, who did it, and what one that is revoked or expired may not do."""

from typing import Any

import numpy as np
import pytest

from smrx.engine import FIRST_RULES, Engine
from smrx.wire.codes import (
    ALL_PERMISSIONS,
    COMMAND_PERMISSIONS,
    COMMAND_TRAITS,
    CommandKind,
    CommandTraits,
    EventKind,
    InstrumentStatus,
    OutcomeStatus,
    Permission,
    Reason,
    Scope,
    Side,
)
from smrx.wire.networks import address_bytes
from smrx.wire.records import EVENT_LAYOUTS
from tests.commands import (
    Commands,
    add_credential,
    apply,
    cancel,
    command,
    key_of,
    open_account,
    open_session,
    place,
    raw,
    revoke_credential,
    session_of,
    set_credential,
)
from tests.engine.small_market import SECOND, SmallMarket

P = Permission
#: Accounts of the market: 1 is of no firm; 21 and 22 are of firm 2, 31 of firm 3.
FIRM_2, FIRM_3 = (21, 22), (31,)


class KeyedMarket(SmallMarket):
    """A small market with firms, credentials and sessions of credentials."""

    def __init__(self) -> None:
        super().__init__()
        for account in FIRM_2 + FIRM_3:
            self.send(open_account(self.sender(0), account, account // 10))
        self.time_ns = 1

    def add(self, number: int, permissions: int, subject: int = 0, scope: int = Scope.ACCOUNT, **more: Any) -> None:
        """Add a credential, and open its session 1, for its account or the venue's."""
        self.send(add_credential(self.sender(0), number, permissions, subject, scope=scope, **more))
        account = {Scope.ACCOUNT: subject, Scope.FIRM: 10 * subject + 1, Scope.ALL: 0}[Scope(scope)]
        self.send(open_session(session_of(number, 1), account))

    def of(self, number: int) -> tuple[int, int]:
        """Return the sender of a credential's next request."""
        session = session_of(number, 1)
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def try_(self, commands: Commands, time_ns: int = 1) -> tuple[Reason, np.void]:
        """Return the reason of one command, and its event in the layout of its kind; the state stays valid."""
        result = apply(self.engine, commands, time_ns)
        assert self.engine.check_invariants() == []
        assert self.engine.content_hash() == self.engine.recompute_content_hash()
        outcome = result.outcomes[0]
        assert (outcome["status"] == OutcomeStatus.ACCEPTED) == (outcome["reason"] == Reason.NONE)
        event = result.events[0] if len(result.events) else np.zeros(1, result.events.dtype)[0]
        kind = int(event["kind"])
        return Reason(int(outcome["reason"])), event if not kind else _own(event)


def _own(event: np.void) -> np.void:
    found: np.void = np.frombuffer(event.tobytes(), EVENT_LAYOUTS[EventKind(int(event["kind"]))])[0]
    return found


@pytest.fixture
def market() -> KeyedMarket:
    return KeyedMarket()


def test_credential_is_added_found_changed_and_revoked(market: KeyedMarket) -> None:
    networks = ("10.1.0.0/16", "2001:db8::/32")
    reason, added = market.try_(
        add_credential(market.sender(0), 7, P.READ | P.TRADE, 1, networks=networks, expires_ns=5 * SECOND)
    )
    assert reason is Reason.NONE
    assert (added["number"], added["account"], added["subject"], added["scope"]) == (7, 1, 1, Scope.ACCOUNT)
    assert (bytes(added["key"]), added["permissions"], added["following"]) == (key_of(7), P.READ | P.TRADE, 1)
    credential = market.engine.credential(7)
    assert credential is not None
    assert market.engine.credential_of_key(key_of(7)) == credential
    assert credential.key == key_of(7)
    assert (credential.permissions, credential.scope, credential.subject) == (P.READ | P.TRADE, Scope.ACCOUNT, 1)
    assert credential.allows(address_bytes("10.1.2.3"))
    assert not credential.allows(address_bytes("10.2.2.3"))
    assert credential.is_active(5 * SECOND - 1)
    assert not credential.is_active(5 * SECOND)

    reason, changed = market.try_(set_credential(market.sender(0), 7, P.READ))
    assert (reason, changed["permissions"], changed["following"]) == (Reason.NONE, P.READ, 0)
    assert (changed["expires_ns"], bytes(changed["key"])) == (0, key_of(7))
    credential = market.engine.credential(7)
    assert credential is not None
    assert credential.allows(address_bytes("10.2.2.3"))

    assert market.try_(revoke_credential(market.sender(0), 7))[0] is Reason.NONE
    credential = market.engine.credential_of_key(key_of(7))
    assert credential is not None
    assert credential.revoked
    assert not credential.is_active(0)
    for again in (revoke_credential, lambda sender, number: set_credential(sender, number, P.READ)):
        assert market.try_(again(market.sender(0), 7))[0] is Reason.CREDENTIAL_REVOKED
    # Neither the number nor the key is free again.
    assert market.try_(add_credential(market.sender(0), 7, P.READ, 1, key=key_of(8)))[0] is Reason.CREDENTIAL_EXISTS
    assert market.try_(add_credential(market.sender(0), 8, P.READ, 1, key=key_of(7)))[0] is Reason.KEY_IN_USE
    listed = market.engine.inspect.credentials()
    assert [(int(row["number"]), bytes(row["key"]), int(row["revoked"])) for row in listed] == [(7, key_of(7), 1)]


def test_networks_follow_in_an_event_of_their_own(market: KeyedMarket) -> None:
    networks = ("10.1.0.0/16", "2001:db8::/32")
    result = market.send(add_credential(market.sender(0), 7, P.READ, 1, networks=networks))
    assert result.events["kind"].tolist() == [EventKind.CREDENTIAL_ADDED, EventKind.CREDENTIAL_NETWORKS]
    follows = _own(result.events[1])
    credential = market.engine.credential(7)
    assert credential is not None
    assert (int(follows["number"]), int(follows["account"])) == (7, 1)
    assert (bytes(follows["networks"]), bytes(follows["prefixes"])) == (credential.networks, credential.prefixes)


def test_lookups_find_each_of_many_and_nothing_else(market: KeyedMarket) -> None:
    for number in range(1, 300):
        market.send(add_credential(market.sender(0), number * 7, P.READ, 1))
    assert market.engine.check_invariants() == []
    again = Engine.restore(market.engine.snapshot())
    for number in range(1, 300):
        found = again.credential_of_key(key_of(7 * number))
        assert found is not None
        assert found.number == 7 * number
        assert again.credential(7 * number) == found
        assert again.credential(7 * number + 1) is None
    assert again.credential_of_key(bytes(32)) is None
    assert [again.account_firm(account) for account in (1, 21, 31, 99)] == [0, 2, 3, None]


MALFORMED = [
    ({"number": 0}, Reason.INVALID_ID),
    ({"key": bytes(32)}, Reason.INVALID_ID),
    ({"permissions": 0}, Reason.INVALID_PERMISSIONS),
    ({"permissions": int(ALL_PERMISSIONS) + 1}, Reason.INVALID_PERMISSIONS),
    ({"scope": 0}, Reason.INVALID_SCOPE),
    ({"scope": 4}, Reason.INVALID_SCOPE),
    ({"scope": Scope.FIRM, "subject": 0}, Reason.INVALID_SCOPE),
    ({"scope": Scope.ALL, "subject": 1}, Reason.INVALID_SCOPE),
    ({"prefixes": bytes((129, 0, 0, 0))}, Reason.INVALID_NETWORK),
    ({"prefixes": bytes((0, 0, 0, 7)), "networks": bytes(48) + b"\x01".ljust(16, b"\0")}, Reason.INVALID_NETWORK),
    ({"networks": bytes(63) + b"\x01"}, Reason.INVALID_NETWORK),
    ({"subject": 99}, Reason.UNKNOWN_ACCOUNT),
    ({"expires_ns": -1}, Reason.INVALID_EXPIRY),
    ({"expires_ns": 1}, Reason.INVALID_EXPIRY),
]


@pytest.mark.parametrize(("fields", "reason"), MALFORMED)
def test_malformed_credential_is_rejected(market: KeyedMarket, fields: dict[str, Any], reason: Reason) -> None:
    good = {"number": 7, "key": key_of(7), "permissions": int(P.READ), "scope": int(Scope.ACCOUNT), "subject": 1}
    assert market.try_(command(CommandKind.ADD_CREDENTIAL, market.sender(0), **(good | fields)))[0] is reason


def test_highest_bits_of_a_network_count(market: KeyedMarket) -> None:
    good = {"key": key_of(7), "permissions": int(P.READ), "scope": int(Scope.ACCOUNT), "subject": 1}
    network = {"prefixes": bytes((0, 0, 0, 8)), "networks": bytes(48) + b"\x01".ljust(16, b"\0")}
    adding = command(CommandKind.ADD_CREDENTIAL, market.sender(0), number=7, **good, **network)
    assert market.try_(adding)[0] is Reason.NONE


def test_set_and_revoke_of_an_unknown_credential_are_rejected(market: KeyedMarket) -> None:
    assert market.try_(set_credential(market.sender(0), 7, P.READ))[0] is Reason.UNKNOWN_CREDENTIAL
    assert market.try_(revoke_credential(market.sender(0), 7))[0] is Reason.UNKNOWN_CREDENTIAL
    for field in ({"key": key_of(1)}, {"subject": 1}, {"scope": 1}):
        changing = command(CommandKind.SET_CREDENTIAL, market.sender(0), number=7, permissions=1, **field)
        assert market.try_(changing)[0] is Reason.RESERVED_NOT_ZERO


def test_session_of_a_credential_needs_its_permission_for_each_kind(market: KeyedMarket) -> None:
    """Each permission alone, for all accounts, against every kind of command."""
    for bit, permission in enumerate(Permission):
        market.add(100 + bit, permission, scope=Scope.ALL)
    for bit, permission in enumerate(Permission):
        for kind, needed in COMMAND_PERMISSIONS.items():
            if CommandTraits.LEADER in COMMAND_TRAITS[kind] or kind in (
                *(CommandKind.OPEN_SESSION, CommandKind.CLOSE_SESSION),
                # They change what the other kinds meet.
                *(CommandKind.KILL, CommandKind.REVIVE, CommandKind.SET_STATUS, CommandKind.REVOKE_CREDENTIAL),
            ):
                continue
            reason = market.try_(_plain(kind, market.of(100 + bit)))[0]
            assert (reason is Reason.NOT_AUTHORISED) == (permission not in needed), (kind, permission, reason)


def _plain(kind: CommandKind, sender: tuple[int, int]) -> Commands:
    """Return a command of a kind whose form is valid."""
    fields: dict[CommandKind, dict[str, Any]] = {
        CommandKind.PLACE: {
            "side": 1,
            "order_type": 1,
            "tif": 1,
            "quantity_lots": 1,
            "price_ticks": 1,
            "instrument": 9,
        },
        CommandKind.CANCEL: {"order_id": 1 << 40},
        CommandKind.REPLACE: {"order_id": 1 << 40},
        CommandKind.DEPOSIT: {"transfer_id": 1},
        CommandKind.WITHDRAW: {"transfer_id": 1},
        CommandKind.ADD_ASSET: {"symbol": b"A"},
        CommandKind.ADD_INSTRUMENT: {"symbol": b"A"},
        CommandKind.SET_STATUS: {"status": InstrumentStatus.TRADING},
        CommandKind.SUSPEND_ACCOUNT: {"account": 3},
        CommandKind.RESUME_ACCOUNT: {"account": 3},
        CommandKind.ADD_CREDENTIAL: {"number": 100, "key": key_of(1), "permissions": 1, "scope": Scope.ALL},
        CommandKind.SET_CREDENTIAL: {"number": 99, "permissions": 1},
        CommandKind.REVOKE_CREDENTIAL: {"number": 99},
    }
    return raw(kind, sender, **fields.get(kind, {}))


@pytest.mark.parametrize(
    ("scope", "subject", "reaches"),
    [
        (Scope.ACCOUNT, 21, {21}),
        (Scope.FIRM, 2, {21, 22}),
        (Scope.ALL, 0, {0, 1, 21, 22, 31}),
    ],
)
def test_scope_bounds_the_accounts(market: KeyedMarket, scope: Scope, subject: int, reaches: set[int]) -> None:
    market.add(7, P.TRADE | P.RISK, subject, scope)
    for account in (0, 1, 21, 22, 31):
        reason = market.try_(command(CommandKind.MASS_CANCEL, market.of(7), account=account))[0]
        assert (reason is Reason.NONE) == (account in reaches), account
        assert reason in (Reason.NONE, Reason.NOT_AUTHORISED)
    unknown = market.try_(command(CommandKind.MASS_CANCEL, market.of(7), account=99))[0]
    assert unknown is (Reason.UNKNOWN_ACCOUNT if scope is Scope.ALL else Reason.NOT_AUTHORISED)
    # Staff commands need the scope of the venue.
    reason = market.try_(command(CommandKind.SUSPEND_ACCOUNT, market.of(7), account=21))[0]
    assert reason is (Reason.NONE if scope is Scope.ALL else Reason.NOT_AUTHORISED)


def test_session_is_opened_for_an_account_in_scope_only(market: KeyedMarket) -> None:
    def opened(credential: int, account: int) -> Reason:
        market.time_ns += 1
        return market.try_(open_session(session_of(credential, market.time_ns), account))[0]

    market.add(5, P.READ, 21)
    market.add(6, P.READ, 2, Scope.FIRM)
    market.add(7, P.READ, 0, Scope.ALL)
    assert [opened(5, account) for account in (21, 22)] == [Reason.NONE, Reason.NOT_AUTHORISED]
    assert [opened(6, account) for account in (22, 31, 99)] == [
        Reason.NONE, Reason.NOT_AUTHORISED, Reason.NOT_AUTHORISED,
    ]  # fmt: skip
    assert [opened(7, account) for account in (0, 31, 99)] == [Reason.NONE, Reason.NONE, Reason.UNKNOWN_ACCOUNT]
    assert opened(8, 1) is Reason.UNKNOWN_CREDENTIAL
    market.send(revoke_credential(market.sender(0), 5))
    assert opened(5, 21) is Reason.CREDENTIAL_REVOKED
    sessions = market.engine.inspect.sessions()
    assert set(sessions["credential"].tolist()) == {0, 5, 6, 7}


def test_session_id_is_of_one_credential(market: KeyedMarket) -> None:
    market.add(5, P.TRADE, 1)
    market.add(6, P.TRADE, 1)
    again = apply(market.engine, open_session(session_of(5, 1), 1), 1).outcomes[0]
    assert again["status"] == OutcomeStatus.DUPLICATE
    assert market.try_(open_session(session_of(5, 1), 2))[0] is Reason.SESSION_IN_USE
    market.send(command(CommandKind.CLOSE_SESSION, market.of(5)))
    market.send(open_session(session_of(5, 1), 1))
    market.send(revoke_credential(market.sender(0), 5))
    assert market.try_(command(CommandKind.CLOSE_SESSION, market.of(5)))[0] is Reason.CREDENTIAL_REVOKED


def test_expired_and_revoked_credentials_send_nothing(market: KeyedMarket) -> None:
    market.add(5, P.TRADE, 1, expires_ns=5 * SECOND)
    market.send(place(market.of(5), 1, Side.BUY, 1, 10), 5 * SECOND - 1)
    reason, event = market.try_(place(market.of(5), 1, Side.BUY, 1, 10), 5 * SECOND)
    assert (reason, event["credential"]) == (Reason.CREDENTIAL_EXPIRED, 5)
    market.send(set_credential(market.sender(0), 5, P.TRADE), 5 * SECOND)
    market.send(place(market.of(5), 1, Side.BUY, 1, 10), 5 * SECOND)
    market.send(revoke_credential(market.sender(0), 5), 5 * SECOND)
    assert market.try_(place(market.of(5), 1, Side.BUY, 1, 10), 5 * SECOND)[0] is Reason.CREDENTIAL_REVOKED


def test_credential_revokes_itself_its_account_and_its_firm(market: KeyedMarket) -> None:
    market.add(5, P.READ, 21)
    market.add(6, P.READ | P.ADMINISTER, 21)
    market.add(7, P.READ, 22)
    market.add(8, P.ADMINISTER, 2, Scope.FIRM)
    market.add(9, P.READ, 31)
    market.add(10, P.ADMINISTER, 0, Scope.ALL)

    def revoked(sender: int, target: int) -> Reason:
        return market.try_(revoke_credential(market.of(sender), target))[0]

    assert revoked(5, 6) is Reason.NOT_AUTHORISED
    assert revoked(6, 7) is Reason.NOT_AUTHORISED
    assert revoked(6, 99) is Reason.UNKNOWN_CREDENTIAL
    assert revoked(6, 5) is Reason.NONE
    assert revoked(5, 5) is Reason.CREDENTIAL_REVOKED
    assert revoked(8, 9) is Reason.NOT_AUTHORISED
    assert revoked(8, 10) is Reason.NOT_AUTHORISED
    assert revoked(8, 7) is Reason.NONE
    assert revoked(9, 9) is Reason.NONE
    assert revoked(10, 8) is Reason.NONE
    # An own session of an account is no administrator of its credentials.
    assert market.try_(revoke_credential(market.sender(1), 6))[0] is Reason.NOT_AUTHORISED


def test_administrators_of_accounts_add_nothing(market: KeyedMarket) -> None:
    market.add(6, P.ADMINISTER, 21)
    assert market.try_(add_credential(market.of(6), 9, P.READ, 21))[0] is Reason.NOT_AUTHORISED
    assert market.try_(set_credential(market.of(6), 6, ALL_PERMISSIONS))[0] is Reason.NOT_AUTHORISED


def test_events_say_who_did_it(market: KeyedMarket) -> None:
    market.add(5, P.TRADE, 1)
    market.add(6, P.TRADE, 2)
    market.send(place(market.of(5), 1, Side.SELL, 3, 10, client_order_id="a longer client order id"))
    result = market.send(place(market.of(6), 2, Side.BUY, 2, 10, stop_ticks=0))
    shown = [(EventKind(int(event["kind"])).name, int(_own(event)["credential"])) for event in result.events]
    assert shown == [("NEW", 6), ("TRADE", 6), ("FILLED", 6), ("PARTIALLY_FILLED", 6)] or shown == [
        ("NEW", 6), ("TRADE", 6), ("PARTIALLY_FILLED", 6), ("FILLED", 6),
    ]  # fmt: skip
    trade = _own(result.events[1])
    assert (trade["counter_account"], trade["account"]) == (1, 2)
    assert market.try_(place(market.sender(1), 1, Side.SELL, 1, 0))[1]["credential"] == 0


def test_what_time_does_is_done_by_nobody(market: KeyedMarket) -> None:
    market.add(5, P.TRADE, 1)
    market.send(place(market.of(5), 1, Side.SELL, 3, 10, tif=4, expiry_ns=2 * SECOND))
    result = market.send(place(market.of(5), 1, Side.SELL, 3, 11), 3 * SECOND)
    kinds = [(EventKind(int(event["kind"])), int(event["credential"])) for event in result.events]
    assert kinds == [(EventKind.EXPIRED, 0), (EventKind.NEW, 5)]


class TestPersons:
    """A gateway names the person behind an order."""

    @pytest.fixture
    def gateway(self, market: KeyedMarket) -> KeyedMarket:
        market.add(5, P.TRADE | P.GATEWAY, 0, Scope.ALL)
        market.add(6, P.TRADE, 1)
        market.add(7, P.READ, 1)
        market.add(8, P.TRADE, 2, Scope.FIRM)
        return market

    def test_person_stands_in_the_events_and_in_the_state(self, gateway: KeyedMarket) -> None:
        result = gateway.send(place(gateway.of(5), 1, Side.BUY, 1, 10, credential=6))
        assert result.events["kind"].tolist() == [EventKind.NEW, EventKind.ORDER_TERMS]
        assert [int(_own(event)["credential"]) for event in result.events] == [6, 6]
        assert gateway.engine.inspect.orders()["credential"].tolist() == [6]
        order_id = int(result.outcomes[0]["order_id"])
        cancelled = gateway.send(cancel(gateway.of(5), 1, order_id, credential=6)).events
        assert cancelled[["kind", "credential"]].tolist() == [(EventKind.CANCELLED, 6)]
        assert gateway.engine.check_invariants() == []

    def test_gateway_without_a_person_is_the_sender_itself(self, gateway: KeyedMarket) -> None:
        result = gateway.send(place(gateway.of(5), 1, Side.BUY, 1, 10, stop_ticks=0))
        assert result.events["credential"].tolist() == [5]

    @pytest.mark.parametrize(
        ("account", "person", "reason"),
        [
            (1, 99, Reason.UNKNOWN_CREDENTIAL),
            (1, 7, Reason.NOT_AUTHORISED),
            (2, 6, Reason.NOT_AUTHORISED),
            (21, 8, Reason.INSUFFICIENT_FUNDS),
            (31, 8, Reason.NOT_AUTHORISED),
        ],
    )
    def test_person_must_be_able_to_trade_for_the_account(
        self, gateway: KeyedMarket, account: int, person: int, reason: Reason
    ) -> None:
        found, event = gateway.try_(place(gateway.of(5), account, Side.BUY, 1, 10, credential=person))
        assert found is reason
        # The person stands in the event once it is known to be allowed.
        assert event["credential"] == (person if reason is Reason.INSUFFICIENT_FUNDS else 5)

    @pytest.mark.parametrize(
        ("person", "reason"),
        [(8, Reason.INSUFFICIENT_FUNDS), (10, Reason.INSUFFICIENT_FUNDS), (5, Reason.NOT_AUTHORISED)],
    )
    def test_gateway_names_nobody_who_acts_for_more_than_itself(
        self, gateway: KeyedMarket, person: int, reason: Reason
    ) -> None:
        """The gateway of a firm does not name the staff of the venue, or another venue's gateway."""
        gateway.add(9, P.TRADE | P.GATEWAY, 2, Scope.FIRM)
        gateway.add(10, P.TRADE, 21)
        assert gateway.try_(place(gateway.of(9), 21, Side.BUY, 1, 10, credential=person))[0] is reason

    def test_revoked_and_expired_persons_are_refused(self, gateway: KeyedMarket) -> None:
        gateway.send(set_credential(gateway.sender(0), 6, P.TRADE, expires_ns=2 * SECOND))
        named = {"credential": 6}
        assert (
            gateway.try_(place(gateway.of(5), 1, Side.BUY, 1, 10, **named), 2 * SECOND)[0] is Reason.CREDENTIAL_EXPIRED
        )
        gateway.send(revoke_credential(gateway.sender(0), 6), 2 * SECOND)
        assert (
            gateway.try_(place(gateway.of(5), 1, Side.BUY, 1, 10, **named), 2 * SECOND)[0] is Reason.CREDENTIAL_REVOKED
        )

    def test_only_a_gateway_or_the_venue_names_persons(self, gateway: KeyedMarket) -> None:
        assert gateway.try_(place(gateway.of(6), 1, Side.BUY, 1, 10, credential=6))[0] is Reason.NOT_AUTHORISED
        assert gateway.try_(place(gateway.sender(1), 1, Side.BUY, 1, 10, credential=6))[0] is Reason.NOT_AUTHORISED
        reason, event = gateway.try_(place(gateway.sender(0), 1, Side.BUY, 1, 10, credential=6))
        assert (reason, event["credential"]) == (Reason.NONE, 6)

    def test_orders_of_several_accounts_end_with_the_gateways_session(self, gateway: KeyedMarket) -> None:
        session = session_of(5, 2)
        gateway.send(open_session(session, 1, flags=1))
        for request, account in enumerate((1, 2, 3, 1), start=1):
            gateway.send(place((session, request), account, Side.BUY, 1, 10))
        result = gateway.send(command(CommandKind.DISCONNECT, (session, 0)))
        cancelled = result.events[result.events["kind"] == EventKind.CANCELLED]
        assert cancelled["account"].tolist() == [1, 2, 3, 1]
        assert set(result.events["credential"].tolist()) == {0}
        assert gateway.engine.check_invariants() == []


class TestFirstRules:
    """With version 1 of the rules there is none of this."""

    @pytest.fixture
    def old(self) -> SmallMarket:
        return SmallMarket(rules=FIRST_RULES)

    def test_kinds_and_fields_are_unknown(self, old: SmallMarket) -> None:
        def reason(commands: Commands) -> Reason:
            return Reason(int(apply(old.engine, commands, 1).outcomes[0]["reason"]))

        assert reason(add_credential(old.sender(0), 5, P.READ, 1)) is Reason.UNKNOWN_KIND
        assert reason(set_credential(old.sender(0), 5, P.READ)) is Reason.UNKNOWN_KIND
        assert reason(revoke_credential(old.sender(0), 5)) is Reason.UNKNOWN_KIND
        assert reason(open_account(old.sender(0), 9, 1)) is Reason.RESERVED_NOT_ZERO
        assert reason(place(old.sender(1), 1, Side.BUY, 1, 10, credential=1)) is Reason.RESERVED_NOT_ZERO
        for symbol in (b"-1", b"2", b"..", b"A"):
            asset = command(CommandKind.ADD_ASSET, old.sender(0), asset=ord(symbol[:1]), symbol=symbol)
            assert reason(asset) is Reason.NONE

    def test_any_session_id_is_allowed_and_goes_on_after_the_switch(self, old: SmallMarket) -> None:
        session = session_of(77, 5)
        old.send(open_session(session, 1))
        old.send(place((session, 1), 1, Side.BUY, 1, 10))
        old.send(command(CommandKind.SET_VERSION, version=2))
        events = old.send(place((session, 2), 1, Side.BUY, 1, 10)).events
        assert events["credential"].tolist() == [0]
        again = apply(old.engine, open_session(session, 1), 1).outcomes[0]
        assert (again["status"], again["order_id"]) == (OutcomeStatus.DUPLICATE, 2)
        # A new one needs its credential; a credential of that number takes the old one out of use.
        for other in (session_of(77, 6), session_of(78, 5)):
            refused = apply(old.engine, open_session(other, 1), 1).outcomes[0]
            assert refused["reason"] == Reason.UNKNOWN_CREDENTIAL
        old.send(add_credential(old.sender(0), 77, P.TRADE, 1))
        refused = apply(old.engine, place((session, 3), 1, Side.BUY, 1, 10), 1).outcomes[0]
        assert refused["reason"] == Reason.NOT_AUTHORISED
        refused = apply(old.engine, open_session(session, 1), 1).outcomes[0]
        assert refused["reason"] == Reason.SESSION_IN_USE
        assert old.engine.check_invariants() == []


@pytest.mark.parametrize("symbol", [b"-1", b"2", b"..", b"_A", b"/A", b"-"])
def test_symbols_begin_with_a_letter_or_digit_and_hold_a_letter(market: KeyedMarket, symbol: bytes) -> None:
    asset = command(CommandKind.ADD_ASSET, market.sender(0), asset=9, symbol=symbol)
    assert market.try_(asset)[0] is Reason.INVALID_ID
    listed = {"symbol": symbol, "base_asset": 1, "quote_asset": 2}
    assert market.try_(command(CommandKind.ADD_INSTRUMENT, market.sender(0), instrument=9, **listed))[0] is (
        Reason.INVALID_ID
    )


@pytest.mark.parametrize("symbol", [b"A", b"1A", b"9........A", b"12345678Z"])
def test_symbols_may_hold_anything_else(market: KeyedMarket, symbol: bytes) -> None:
    assert market.try_(command(CommandKind.ADD_ASSET, market.sender(0), asset=9, symbol=symbol))[0] is Reason.NONE

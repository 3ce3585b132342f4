"""The oracle's credentials, scopes, persons and contents of requests compared with hand-computed results."""

import pytest
import xxhash

from smrx.wire.codes import CommandKind, EventKind, Permission, Reason, Scope
from tests import commands as make
from tests.oracle import Oracle, Result
from tests.oracle.oracle_market import ALICE, BOB, BTC, BUY, CAROL, SELL, USD, OracleMarket, event_kinds, rejected
from tests.oracle.records import hash_words
from tests.raw_credentials import add_credential, credential_key, network, revoke_credential, set_credential

SECOND = 1_000_000_000
FIRM, OTHER_FIRM = 5, 6
DAVE, EVE = 4, 5
P = Permission


@pytest.fixture
def market() -> OracleMarket:
    """The market, with two accounts of a firm."""
    market = OracleMarket()
    for account in (DAVE, EVE):
        market.send_as_venue(make.open_account, account, FIRM)
        market.deposit(account, USD, 10_000)
        market.deposit(account, BTC, 1_000)
    return market


def add(market: OracleMarket, number: int, permissions: int, **terms: int) -> Result:
    return market.send_as_venue(add_credential, number, permissions=permissions, **terms)


def open_session(market: OracleMarket, number: int, account: int, time_ns: int = 0) -> Result:
    return market.send(make.open_session(number << 32 | 1, account), time_ns)


def place(market: OracleMarket, number: int, account: int, *, time_ns: int = 0, person: int = 0) -> Result:
    """Place an order of one lot that rests, by the session of a credential."""
    sender = market.sender(number << 32 | 1)
    return market.send(make.place(sender, account, BUY, 1, 10, credential=person), time_ns)


def who(result: Result) -> list[int]:
    """Return who did it, of each event; it is at another place in a TRADE."""
    at = [64 if kind is EventKind.TRADE else 120 for kind in event_kinds(result)]
    return [
        int.from_bytes(event.tobytes()[place:][:4], "little") for event, place in zip(result.events, at, strict=True)
    ]


def test_credential_is_hashed_with_its_networks(market: OracleMarket) -> None:
    before = set(market.oracle.state.records())
    networks = (network("10.1.0.0/16"), network("2001:db8::/32"))
    market.send_as_venue(
        add_credential,
        77,
        permissions=P.READ | P.TRADE,
        scope=Scope.ACCOUNT,
        subject=ALICE,
        expires_ns=9,
        networks=networks,
    )
    added = {words for words in set(market.oracle.state.records()) - before if words[0] & 0xFF in (21, 23)}
    key = credential_key(77)
    words = tuple(int.from_bytes(key[at : at + 8], "little") for at in range(0, 32, 8))
    mapped = int.from_bytes(b"\0\0\xff\xff\x0a\x01\0\0", "big")
    assert added == {
        (21 | 1 << 8 | (112 | 32 << 8) << 32, 77 | 3 << 32, ALICE, 9, *words),
        (23, 77, 0, int.from_bytes(mapped.to_bytes(8, "big"), "little"), 0xB80D0120, 0, 0, 0, 0, 0),
    }
    market.send_as_venue(revoke_credential, 77)
    assert (21 | 1 << 8 | 1 << 16 | (112 | 32 << 8) << 32, 77 | 3 << 32, ALICE, 9, *words) in set(
        market.oracle.state.records()
    )


def test_firm_and_session_are_hashed(market: OracleMarket) -> None:
    add(market, 7, P.TRADE, scope=Scope.FIRM, subject=FIRM)
    open_session(market, 7, DAVE)
    records = set(market.oracle.state.records())
    assert {(22, DAVE | FIRM << 32), (22, EVE | FIRM << 32), (20 | 7 << 32, 7 << 32 | 1)} <= records
    assert not any(words[:2] == (22, ALICE) for words in records)


@pytest.mark.parametrize(
    ("scope", "subject", "allowed"),
    [
        (Scope.ACCOUNT, DAVE, {DAVE}),
        (Scope.ACCOUNT, 0, {0}),
        (Scope.FIRM, FIRM, {DAVE, EVE}),
        (Scope.FIRM, OTHER_FIRM, set()),
        (Scope.ALL, 0, {0, ALICE, BOB, CAROL, DAVE, EVE}),
    ],
)
def test_scope_decides_for_which_accounts(market: OracleMarket, scope: int, subject: int, allowed: set[int]) -> None:
    add(market, 7, P.WITHDRAW, scope=scope, subject=subject)
    market.deposit(0, USD, 100)
    for account in (0, ALICE, BOB, CAROL, DAVE, EVE):
        opened = market.send(make.open_session(7 << 32 | account, account))
        assert (event_kinds(opened) == [EventKind.SESSION_OPENED]) == (account in allowed)
    if not allowed:
        return
    own = 7 << 32 | min(allowed)
    for account in (0, ALICE, BOB, CAROL, DAVE, EVE):
        market.transfers += 1
        sent = market.send(make.withdraw(market.sender(own), account, USD, 1, market.transfers))
        expected = EventKind.WITHDRAWN if account in allowed else EventKind.REJECTED
        assert event_kinds(sent) == [expected]


def test_expiry_is_exact_and_can_be_moved(market: OracleMarket) -> None:
    add(market, 7, P.TRADE, scope=Scope.ACCOUNT, subject=ALICE, expires_ns=5 * SECOND)
    open_session(market, 7, ALICE)
    assert event_kinds(place(market, 7, ALICE, time_ns=5 * SECOND - 1)) == [EventKind.NEW]
    assert rejected(place(market, 7, ALICE, time_ns=5 * SECOND)) is Reason.CREDENTIAL_EXPIRED
    moved = market.send(set_credential(market.sender(100), 7, permissions=P.TRADE, expires_ns=5 * SECOND), 5 * SECOND)
    assert rejected(moved) is Reason.INVALID_EXPIRY
    market.send(set_credential(market.sender(100), 7, permissions=P.TRADE, expires_ns=5 * SECOND + 1), 5 * SECOND)
    assert event_kinds(place(market, 7, ALICE, time_ns=5 * SECOND)) == [EventKind.NEW]
    assert rejected(place(market, 7, ALICE, time_ns=5 * SECOND + 1)) is Reason.CREDENTIAL_EXPIRED


def test_expired_credential_uses_the_time_of_its_own_command(market: OracleMarket) -> None:
    """A command's stamp counts for its own checks."""
    add(market, 7, P.TRADE, scope=Scope.ACCOUNT, subject=ALICE, expires_ns=5)
    assert rejected(open_session(market, 7, ALICE, time_ns=5)) is Reason.CREDENTIAL_EXPIRED


def test_revoked_credential_does_nothing_more(market: OracleMarket) -> None:
    add(market, 7, P.TRADE, scope=Scope.ACCOUNT, subject=ALICE)
    open_session(market, 7, ALICE)
    resting = place(market, 7, ALICE)
    first = make.place((7 << 32 | 1, 1), ALICE, BUY, 1, 10)
    market.send_as_venue(revoke_credential, 7)
    for kind in (CommandKind.MASS_CANCEL, CommandKind.CLOSE_SESSION):
        fields = {"account": ALICE} if kind is CommandKind.MASS_CANCEL else {}
        sent = market.send(make.command(kind, market.sender(7 << 32 | 1), **fields))
        assert (rejected(sent), who(sent)) == (Reason.CREDENTIAL_REVOKED, [7])
    # Its order stays, and a repeated request has its first answer.
    assert list(market.oracle.state.orders) == [int(resting.outcomes[0]["order_id"])]
    assert market.send(first).outcomes.tobytes() == resting.outcomes.tobytes()


def test_person_is_in_the_events_and_the_order(market: OracleMarket) -> None:
    add(market, 7, P.TRADE | P.GATEWAY, scope=Scope.FIRM, subject=FIRM)
    add(market, 8, P.TRADE, scope=Scope.ACCOUNT, subject=DAVE)
    open_session(market, 7, EVE)
    placed = place(market, 7, DAVE, person=8)
    assert event_kinds(placed) == [EventKind.NEW, EventKind.ORDER_TERMS]
    # That of ORDER_TERMS stands at 112.
    assert who(placed) == [8, 0]
    assert placed.events.tobytes()[128 + 112 : 128 + 116] == (8).to_bytes(4, "little")
    order_id = int(placed.outcomes[0]["order_id"])
    order = market.oracle.state.orders[order_id]
    assert list(order.extra_words()) == [(14, order_id, 0, 0, 0, 0, 0, 0, 8)]
    # A trade that another one causes has that one's credential.
    sold = market.place(BOB, SELL, 1, 10)
    assert event_kinds(sold) == [EventKind.NEW, EventKind.TRADE, EventKind.FILLED, EventKind.FILLED]
    assert set(who(sold)) == {0}


@pytest.mark.parametrize(
    ("person", "account", "reason"),
    [
        (8, DAVE, Reason.NONE),
        (8, EVE, Reason.NOT_AUTHORISED),
        (9, DAVE, Reason.NOT_AUTHORISED),
        (7, DAVE, Reason.NONE),
        (99, DAVE, Reason.UNKNOWN_CREDENTIAL),
        (8, ALICE, Reason.NOT_AUTHORISED),
        # Of the venue's staff, whom no gateway of a firm names.
        (10, DAVE, Reason.NOT_AUTHORISED),
        (11, DAVE, Reason.NONE),
    ],
)
def test_person_must_be_able_to_trade(market: OracleMarket, person: int, account: int, reason: Reason) -> None:
    """Also a gateway may stand behind its own orders by name."""
    add(market, 7, P.TRADE | P.GATEWAY, scope=Scope.FIRM, subject=FIRM)
    add(market, 8, P.TRADE, scope=Scope.ACCOUNT, subject=DAVE)
    add(market, 9, P.READ, scope=Scope.ACCOUNT, subject=DAVE)
    add(market, 10, P.TRADE, scope=Scope.ALL)
    add(market, 11, P.TRADE, scope=Scope.FIRM, subject=FIRM)
    open_session(market, 7, EVE)
    placed = place(market, 7, account, person=person)
    assert Reason(int(placed.outcomes[0]["reason"])) is reason
    # Who is not proven did not do it.
    assert who(placed)[0] == (person if reason is Reason.NONE else 7)


def test_only_a_gateway_or_the_venue_names_a_person(market: OracleMarket) -> None:
    add(market, 8, P.TRADE, scope=Scope.ACCOUNT, subject=ALICE)
    open_session(market, 8, ALICE)
    assert rejected(place(market, 8, ALICE, person=8)) is Reason.NOT_AUTHORISED
    assert rejected(market.place(ALICE, BUY, 1, 10, credential=8)) is Reason.NOT_AUTHORISED
    by_venue = market.send_as_venue(make.place, ALICE, BUY, 1, 10, credential=8)
    assert who(by_venue) == [8, 0]


def test_content_of_a_request_follows_the_formula(market: OracleMarket) -> None:
    """Chain and content of one request, computed from the formula alone."""
    order = make.place((103, 1), CAROL, BUY, 1, 10, client_order_id="a long client order id")
    data, details = order.records.tobytes(), order.details.tobytes()
    placed = market.send(order).outcomes[0]
    content = xxhash.xxh3_64_intdigest(data[:6] + b"\1\0" + data[24:])
    for half in (details[:64], details[64:]):
        content = xxhash.xxh3_64_intdigest(content.to_bytes(8, "little") + half)
    session = market.oracle.state.sessions[103]
    assert session.contents[1] == content
    head = 16 + 1 | EventKind.NEW << 8 | 2 << 32
    numbers = (int(placed["sequence"]), int(placed["order_id"]), int(placed["first_event"]), 0, 1)
    assert session.chain == hash_words((head, 103, (1 + content) % (1 << 64), *numbers))


def test_place_of_the_details_is_no_content(market: OracleMarket) -> None:
    """A request that is sent again in another frame is the same request."""
    order = make.place((103, 1), CAROL, BUY, 1, 10, client_order_id="a long client order id")
    first = market.send(order).outcomes
    others = make.join([make.place((101, 1), ALICE, BUY, 1, 10, client_order_id="another client order id"), order])
    assert others.records["details"].tolist() == [1, 2]
    assert market.send(others).outcomes[1].tobytes() == first[0].tobytes()


def test_mismatch_changes_nothing(market: OracleMarket) -> None:
    market.place(ALICE, BUY, 1, 10)
    before = (market.oracle.state_hash, market.oracle.content_hash(), market.oracle.sequence)
    result = market.send(make.place((101, 1), ALICE, BUY, 2, 10), time_ns=SECOND)
    assert len(result.events) == 0
    outcome = result.outcomes[0]
    assert (outcome["status"], outcome["reason"], outcome["event_kind"]) == (2, Reason.REQUEST_MISMATCH, 0)
    assert (outcome["sequence"], outcome["order_id"], outcome["first_event"]) == (0, 1, 0)
    assert (market.oracle.state_hash, market.oracle.content_hash(), market.oracle.sequence) == before


def test_first_rules_know_none_of_it() -> None:
    """Bytes that version 2 gives a meaning are reserved, events have none, and a repeat is not compared."""
    oracle = Oracle(1)
    make.apply(oracle, make.open_session(9 << 32 | 1, 0), 0)
    sender = [(9 << 32 | 1, number) for number in range(9)]
    for command, reason in (
        (make.open_account(sender[1], 5, FIRM), Reason.RESERVED_NOT_ZERO),
        (make.place(sender[2], 0, BUY, 1, 10, credential=7), Reason.RESERVED_NOT_ZERO),
        (add_credential(sender[3], 7, permissions=1, scope=Scope.ALL), Reason.UNKNOWN_KIND),
        (set_credential(sender[4], 7, permissions=1), Reason.UNKNOWN_KIND),
        (revoke_credential(sender[5], 7), Reason.UNKNOWN_KIND),
    ):
        result = make.apply(oracle, command, 0)
        assert rejected(result) is reason
        assert not any(result.events.tobytes()[120:124])
    added = make.apply(oracle, make.add_asset(sender[6], 1, "-1"), 0)
    assert (event_kinds(added), oracle.state.assets[1].symbol) == ([EventKind.ASSET_ADDED], b"-1")
    assert make.apply(oracle, make.open_account(sender[6], 77), 0).outcomes[0]["event_kind"] == EventKind.ASSET_ADDED
    assert oracle.state.sessions[9 << 32 | 1].contents[6] == 0


def test_session_of_the_first_rules_has_no_owner_once_its_number_is_a_credentials() -> None:
    oracle = Oracle(1)
    session = 9 << 32 | 1
    make.apply(oracle, make.open_session(session, 0), 0)
    make.apply(oracle, make.open_session(5, 0), 0)
    make.apply(oracle, make.command(CommandKind.SET_VERSION, version=2), 0)
    opened = make.apply(oracle, make.open_account((session, 1), 1), 0)
    assert (event_kinds(opened), who(opened)) == ([EventKind.ACCOUNT_OPENED], [0])
    make.apply(oracle, add_credential((5, 1), 9, permissions=0x7F, scope=Scope.ALL), 0)
    assert rejected(make.apply(oracle, make.open_account((session, 2), 2), 0)) is Reason.NOT_AUTHORISED
    assert rejected(make.apply(oracle, make.open_session(session, 0), 0)) is Reason.SESSION_IN_USE
    again = make.apply(oracle, make.open_session(9 << 32 | 2, 0), 0)
    assert (event_kinds(again), who(again)) == ([EventKind.SESSION_OPENED], [9])


@pytest.mark.parametrize(
    ("symbol", "valid"),
    [("A", True), ("4A", True), ("A-", True), ("-A", False), ("42", False), ("..", False), ("_A", False)],
)
def test_symbols_begin_with_a_letter_or_digit_and_have_a_letter(market: OracleMarket, symbol: str, valid: bool) -> None:
    result = market.send_as_venue(make.add_asset, 9, symbol)
    assert event_kinds(result) == [EventKind.ASSET_ADDED if valid else EventKind.REJECTED]

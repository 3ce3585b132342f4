"""The venue in which the rejection table is tried: accounts, orders of several types, a last price; and its variations.

A setup is a set of changes (`killed`, `limits` ...), so that two of them can be combined.
"""

from typing import Any

import numpy as np

from smrx.wire.client_order_ids import id_form
from smrx.wire.codes import CommandKind, InstrumentStatus, OrderFlags, Permission, Scope, Side
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND_FIELDS, COMMAND_LAYOUTS, DETAILS, DETAILS_FIELDS, DETAILS_LAYOUTS
from tests import commands as make
from tests.raw_credentials import add_credential, credential_key, revoke_credential

VENUE_SESSION, ALICE_SESSION, BOB_SESSION, CLOSED_SESSION = 100, 101, 102, 103
ALICE, BOB = 1, 2
FIRM = 7
USD, BTC = 1, 2
CAP = 1_000_000
MARKET, OTHER_MARKET = 1, 2
#: Client order ids of alice's open orders: three short ones, as the field of a command, and a long one.
IDS = ("55", "56", "57")
RESTING, POST_ONLY, ICEBERG = (id_form(name.encode()) for name in IDS)
LONG = b"an id of many characters"
DEPOSITED, OTHER_DEPOSIT, WITHDRAWN = 1, 2, 3
RULES = {"band_bp": 5_000, "min_price_ticks": 10, "min_quantity_lots": 2}

NOW_NS = 5_000_000_000
#: The preparation is a nanosecond earlier: then one of the credentials has not expired yet.
PREPARED_NS = NOW_NS - 1

ALL_OF_IT = 0x7F
#: Credentials, with version 2 of the rules: alice's, those of her firm and of all; each has a session.
TRADER, READER, REVOKED, EXPIRED, BOBS, FIRMS_ADMIN, OWN_ADMIN = 21, 22, 23, 24, 25, 26, 27
GATEWAY, FIRMS_READER, RISK, ADMIN = 31, 32, 41, 42
CREDENTIALS: dict[int, dict[str, Any]] = {
    TRADER: {"scope": Scope.ACCOUNT, "subject": ALICE, "permissions": Permission.TRADE},
    READER: {"scope": Scope.ACCOUNT, "subject": ALICE, "permissions": Permission.READ | Permission.FOLLOW},
    REVOKED: {"scope": Scope.ALL, "permissions": ALL_OF_IT},
    EXPIRED: {"scope": Scope.ALL, "permissions": ALL_OF_IT, "expires_ns": NOW_NS},
    BOBS: {"scope": Scope.ACCOUNT, "subject": BOB, "permissions": ALL_OF_IT},
    FIRMS_ADMIN: {"scope": Scope.FIRM, "subject": FIRM, "permissions": Permission.ADMINISTER | Permission.RISK},
    OWN_ADMIN: {"scope": Scope.ACCOUNT, "subject": ALICE, "permissions": ALL_OF_IT},
    GATEWAY: {"scope": Scope.FIRM, "subject": FIRM, "permissions": ALL_OF_IT},
    FIRMS_READER: {"scope": Scope.FIRM, "subject": FIRM, "permissions": Permission.READ},
    RISK: {"scope": Scope.ALL, "permissions": ALL_OF_IT & ~Permission.ADMINISTER},
    ADMIN: {"scope": Scope.ALL, "permissions": ALL_OF_IT & ~(Permission.RISK | Permission.TRADE)},
}
#: The key of TRADER, as the builder makes it.
KEY_IN_USE = credential_key(TRADER)


def session_of(credential: int) -> int:
    """Return the session of a credential."""
    return credential << 32 | 1


#: Kinds without a request id.
UNNUMBERED = (CommandKind.OPEN_SESSION, CommandKind.DISCONNECT, CommandKind.TICK, CommandKind.SET_VERSION)

#: A change of the setup; `limits`, `rules` and `capacity` hold fields of their records.
Change = bool | dict[str, int]
Setup = dict[str, Change]


class PreparedVenue:
    """A state machine with a market, changed as a setup says."""

    def __init__(self, machine: Any, setup: Setup) -> None:
        self.machine = machine
        self.rules = int(machine.rules_version)
        self.requests: dict[int, int] = {}
        self.prepare()
        self.apply_setup(setup)

    def sender(self, session: int) -> make.Sender:
        """Return a session and its next request id."""
        self.requests[session] = self.requests.get(session, 0) + 1
        return session, self.requests[session]

    def send(self, commands: make.Commands) -> np.void:
        """Apply a command of the preparation, which must be accepted; return its outcome."""
        outcome: np.void = make.apply(self.machine, commands, PREPARED_NS).outcomes[0]
        if outcome["event_kind"] == 0 or outcome["status"] != 1:
            described = make.describe(commands.records[0], commands.details)
            raise ValueError(f"preparation: expected {described} to be accepted, found {outcome}")
        return outcome

    def send_as_venue(self, builder: Any, *args: Any, **named: Any) -> np.void:
        return self.send(builder(self.sender(VENUE_SESSION), *args, **named))

    def place(self, session: int, account: int, side: Side, lots: int, price: int, **named: Any) -> int:
        return int(self.send(make.place(self.sender(session), account, side, lots, price, **named))["order_id"])

    def prepare(self) -> None:
        self.send(make.open_session(VENUE_SESSION, 0))
        self.send_as_venue(make.add_asset, USD, "USD", 2, cap=CAP)
        self.send_as_venue(make.add_asset, BTC, "BTC", 8)
        for market, symbol, most in ((MARKET, "BTC/USD", 500), (OTHER_MARKET, "OTHER", 5_000)):
            self.send_as_venue(
                make.add_instrument, market, symbol, base_asset=BTC, quote_asset=USD,
                max_price_ticks=1_000, max_quantity_lots=most,
            )  # fmt: skip
        for session, account in ((ALICE_SESSION, ALICE), (BOB_SESSION, BOB)):
            self.send_as_venue(make.open_account, account, FIRM if account == ALICE and self.rules >= 2 else 0)
            self.send(make.open_session(session, account))
            self.send_as_venue(make.deposit, account, BTC, 1_000, 10 + account)
            self.send_as_venue(make.deposit, account, USD, 50_000, 20 + account)
        self.send_as_venue(make.deposit, ALICE, USD, 5, DEPOSITED)
        self.send_as_venue(make.deposit, ALICE, USD, 7, OTHER_DEPOSIT)
        self.send_as_venue(make.withdraw, ALICE, USD, 5, WITHDRAWN)
        # A trade at 100, then an offer at 120, and three orders of alice's.
        self.place(BOB_SESSION, BOB, Side.SELL, 2, 100)
        self.place(ALICE_SESSION, ALICE, Side.BUY, 2, 100)
        self.place(BOB_SESSION, BOB, Side.SELL, 5, 120)
        own = [
            self.place(ALICE_SESSION, ALICE, Side.BUY, 10, 90, client_order_id=IDS[0]),
            self.place(ALICE_SESSION, ALICE, Side.BUY, 10, 80, client_order_id=IDS[1], flags=OrderFlags.POST_ONLY),
            self.place(ALICE_SESSION, ALICE, Side.BUY, 10, 70, client_order_id=IDS[2], display_lots=4),
        ]
        self.place(ALICE_SESSION, ALICE, Side.BUY, 10, 60, client_order_id=LONG.decode())
        self.orders = dict(zip((RESTING, POST_ONLY, ICEBERG), own, strict=True))
        self.send_as_venue(make.set_rules, MARKET, **RULES)
        self.send(make.open_session(CLOSED_SESSION, ALICE))
        self.send(make.command(CommandKind.CLOSE_SESSION, self.sender(CLOSED_SESSION)))
        if self.rules >= 2:
            self.add_credentials()

    def add_credentials(self) -> None:
        for number, terms in CREDENTIALS.items():
            self.send_as_venue(add_credential, number, **terms)
            self.send(make.open_session(session_of(number), BOB if number == BOBS else ALICE))
            # A request, so that it can be repeated with another content.
            make.apply(self.machine, make.cancel(self.sender(session_of(number)), ALICE, 1 << 40), PREPARED_NS)
        self.send_as_venue(revoke_credential, REVOKED)
        # Another last request of the venue than any that is tried.
        self.send_as_venue(make.set_limits, BOB)

    def apply_setup(self, setup: Setup) -> None:
        limits, rules = setup.get("limits"), setup.get("rules")
        if isinstance(rules, dict):
            self.send_as_venue(make.set_rules, MARKET, **{**RULES, **rules})
        if isinstance(limits, dict):
            self.send_as_venue(make.set_limits, ALICE, **limits)
        if setup.get("low_funds"):
            available = next(row for row in self.machine.inspect.balances(ALICE) if row["asset"] == USD)["available"]
            self.send_as_venue(make.withdraw, ALICE, USD, int(available) - 5, 900)
        if setup.get("halted"):
            self.send_as_venue(make.set_status, MARKET, InstrumentStatus.HALTED)
        if setup.get("suspended"):
            self.send(make.command(CommandKind.SUSPEND_ACCOUNT, self.sender(VENUE_SESSION), account=ALICE))
        capacity = setup.get("capacity")
        if isinstance(capacity, dict):
            self.send_as_venue(make.set_capacity, **capacity)
        if setup.get("killed"):
            self.send(make.command(CommandKind.KILL, self.sender(VENUE_SESSION)))

    def try_command(self, command: make.Commands) -> np.void:
        """Apply a command under test; its request id is an offset to the session's next. Return the outcome."""
        record = command.records.copy()
        session = int(record["session_id"][0])
        if record["kind"] not in UNNUMBERED:
            known = {int(row["session_id"]): int(row["last_request_id"]) for row in self.machine.inspect.sessions()}
            record["request_id"] += known.get(session, 0) + 1
        outcome: np.void = make.apply(self.machine, CommandList(record, command.details), NOW_NS).outcomes[0]
        return outcome


def offset_command(kind: int, session: int, **fields: Any) -> make.Commands:
    """Return a command whose request id is an offset to the session's next.

    `byte_N` and `details_byte_N` set a byte of the command and of its details.
    """
    named = {name: value for name, value in fields.items() if "byte_" not in name}
    records, details = make.raw(kind, (session, named.pop("request_id", 0)), **named)
    for name, value in fields.items():
        if name.startswith("details_byte_"):
            if not len(details):
                details = np.zeros(1, DETAILS)
                records["details"] = fields.get("details", 1)
            details.view(np.uint8)[int(name.removeprefix("details_byte_"))] = value
        elif name.startswith("byte_"):
            records.view(np.uint8)[int(name.removeprefix("byte_"))] = value
    return CommandList(records, details)


def meaningful_bytes(kind: CommandKind, rules: int = 2) -> set[int]:
    """Return the numbers of the bytes of a command that the kind uses, from the tables of the protocol."""
    names = ["kind", "details", *(name for name in COMMAND_FIELDS[kind] if name != "firm" or rules >= 2)]
    names += [] if kind is CommandKind.TICK else ["session_id"]
    names += [] if kind in UNNUMBERED else ["request_id"]
    return _bytes_of(COMMAND_LAYOUTS[kind], names)


def meaningful_details_bytes(kind: CommandKind, rules: int = 2) -> set[int]:
    """Return the numbers of the bytes of the details that the kind uses."""
    if kind not in DETAILS_LAYOUTS:
        return set()
    names = [name for name in DETAILS_FIELDS[kind] if name != "credential" or rules >= 2]
    return _bytes_of(DETAILS_LAYOUTS[kind], names)


def _bytes_of(layout: np.dtype[Any], names: list[str]) -> set[int]:
    found: set[int] = set()
    for name in names:
        field, offset = (layout.fields or {})[name][:2]
        found |= set(range(offset, offset + field.itemsize))
    return found

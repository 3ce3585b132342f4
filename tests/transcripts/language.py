r"""The language of the transcripts: one command a line, run on the engine or the oracle, with the answer as text.

A file has comments (lines that begin with #), commands (lines that begin with >) and, under each command, its answer.
Names stand for numbers: accounts, assets, instruments and sessions are numbered from 1 in the order in which the file
names them; `venue` is account 0. Commands:

    market alice bob ...                                 a venue with USD, BTC and BTC/USD, and funded accounts
    asset USD [decimals 2] [cap 1000000]
    instrument BTC/USD [lot 1] [scale 1] [max-price 1000] [max-quantity 1000]
    rules BTC/USD [taker 1000] [maker -500] [band 500] [min-price 1] [min-quantity 1] [min-notional 1] [max-notional 9]
                  [collar 500] [collar-from best|last] [market-bounds min|max|both]
    retention silence 60 age 3600 transfers 100          how long, in seconds, and how many
    capacity [orders 10] [accounts 4] ...                the most records of each kind; of others the largest number
    status BTC/USD trading|halted|cancel-only|closed
    account alice [firm acme]        suspend alice        resume alice
    limits alice [orders 5] [quantity 10] [notional 1000] [open-notional 5000]
    session alice [cancel-on-disconnect] [answers 4]     opens one more session; the newest one sends commands
    reopen alice                                         opens the newest session again
    close alice          disconnect alice
    deposit alice 1000 USD [transfer 7]                  likewise withdraw
    place alice buy 10 BTC/USD @ 100 [gtc|ioc|fok|gtd] [until 60] [show 2] [post-only] [id 7 | id 'any text']
                                                         until: in seconds, or in nanoseconds as `until 60000000001ns`
    place alice buy 10 BTC/USD market                    or   budget, where 10 is the amount to spend
    place alice buy 10 BTC/USD stop 105 [ioc|gtd]        or   @ 107 stop-limit 105 [gtc|ioc|fok|gtd] [show 2]
                                                         any of them with [stp none|newest|oldest|both|decrement]
    cancel alice #12            or   cancel alice id 7   (the id as for place)
    replace alice #12 5 @ 100   or   replace alice id 7 5 @ 100   or, a stop order, replace alice #12 5
    mass-cancel alice [buy|sell] [BTC/USD]
    kill     revive     tick     version 2
    credential desk for alice | for firm acme | for all [may trade,withdraw] [until 60] [from 10.0.0.0/8,fe80::/10]
                    [key other]                          a new one, with the key of its name or of another one
    restrict desk [may read] [until 60] [from 10.0.0.0/8]
    revoke desk
    session alice as desk                                a session of a credential for an account; see `by` below
    raw kind=9 account=1 ...                             any field of the record and of its details, text as 'a\x00b'
    time 5   or   time 5s                                the time stamp of later commands, in nanoseconds or seconds
    book BTC/USD      orders      balances [alice]      sessions      accounts      instruments      assets      hash
    credentials

Any command may end in `by bob`, whose session sends it (`by desk` is that of a credential), and in `request 3` or
`request again` (the last one sent). A place, cancel or replace may end in `person eve`: the credential of the person
behind it. A file begins with version 1 of the rules; credentials need `version 2`. An event ends in the credential that
caused it, in brackets.
"""

import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from smrx.wire.codes import (
    CollarReference,
    CommandKind,
    OrderFlags,
    OrderType,
    Permission,
    RuleFlags,
    Scope,
    SessionFlags,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.records import CAPACITIES
from tests import commands as make
from tests.raw_credentials import add_credential, network, revoke_credential, set_credential
from tests.transcripts import text

Words = list[str]
FUNDS = (("USD", 10_000), ("BTC", 100))
NANOSECONDS = 1_000_000_000
RULES = {
    "taker": "taker_fee",
    "maker": "maker_fee",
    "band": "band_bp",
    "min-price": "min_price_ticks",
    "min-quantity": "min_quantity_lots",
    "min-notional": "min_notional",
    "max-notional": "max_notional",
    "collar": "collar_bp",
}
#: Rules that are words in the language.
CHOICES = {
    "collar-from": ("collar_reference", {"best": CollarReference.BEST_PRICE, "last": CollarReference.LAST_TRADE}),
    "market-bounds": (
        "rule_flags",
        {
            "min": RuleFlags.MIN_NOTIONAL_OF_MARKET,
            "max": RuleFlags.MAX_NOTIONAL_OF_MARKET,
            "both": RuleFlags.MIN_NOTIONAL_OF_MARKET | RuleFlags.MAX_NOTIONAL_OF_MARKET,
        },
    ),
}
LIMITS = {
    "orders": "max_open_orders",
    "quantity": "max_order_quantity",
    "notional": "max_order_notional",
    "open-notional": "max_open_notional",
}


class Script:
    """A state machine, and the numbers behind the names of one file."""

    def __init__(self, machine: Any) -> None:
        self.machine: Any = machine
        self.accounts: dict[str, int] = {"venue": 0}
        self.assets: dict[str, int] = {}
        self.instruments: dict[str, int] = {}
        self.sessions: dict[str, int] = {}
        self.firms: dict[str, int] = {}
        self.credentials: dict[str, int] = {}
        self.transfers = 0
        self.session_count = 0
        self.time_ns = 0
        self.sender_name: str | None = None
        self.request: str | None = None
        self.person: str | None = None

    def run(self, line: str) -> list[str]:
        """Run one command; return the lines of its answer."""
        line, self.sender_name = _cut(line, r"\s+by (\S+)")
        line, self.request = _cut(line, r"\s+request (\S+)")
        line, self.person = _cut(line, r"\s+person (\S+)")
        verb, *words = shlex.split(line)
        method = getattr(self, "do_" + verb.replace("-", "_"), None)
        if method is None:
            raise ValueError(f"unknown transcript command {line!r}")
        answer: list[str] = method(words)
        return answer

    # Sending.

    def sender(self, account: str) -> make.Sender:
        """Return the session that sends for a name, and its next request id."""
        session = self.sessions.get(self.sender_name or account, 0)
        known = {int(row["session_id"]): int(row["last_request_id"]) for row in self.machine.inspect.sessions()}
        last = known.get(session, 0)
        if self.request == "again":
            return session, last
        return session, last + 1 if self.request is None else int(self.request)

    def send(self, commands: make.Commands) -> list[str]:
        result = make.apply(self.machine, commands, self.time_ns)
        return text.answer(result.outcomes[0], result.events, self.names)

    @property
    def names(self) -> text.Names:
        return text.Names(self.accounts, self.assets, self.instruments, self.credentials, self.firms)

    def own(self, kind: CommandKind, account: str, **fields: Any) -> list[str]:
        return self.send(make.command(kind, self.sender(account), account=self.account(account), **fields))

    def account(self, name: str) -> int:
        return self.accounts.setdefault(name, len(self.accounts))

    @property
    def behind(self) -> dict[str, int]:
        """The field of the person behind an order, if the line names one."""
        return {"credential": self.credentials.get(self.person, 99)} if self.person else {}

    # The venue.

    def do_market(self, words: Words) -> list[str]:
        """Set up the market; answer with one line."""
        lines = ["session venue", "asset USD", "asset BTC", "instrument BTC/USD"]
        for name in words:
            lines += [f"account {name}", f"session {name}"]
            lines += [f"deposit {name} {amount} {asset}" for asset, amount in FUNDS]
        for line in lines:
            answered = self.run(line)
            if any("REJECTED" in answer for answer in answered):
                raise ValueError(f"market: {line!r} was not accepted: {answered}")
        return [f"ready at command {self.machine.sequence}"]

    def do_asset(self, words: Words) -> list[str]:
        name = words[0]
        asset = self.assets.setdefault(name, len(self.assets) + 1)
        decimals, cap = _named(words, "decimals", 0), _named(words, "cap", 0)
        return self.send(make.add_asset(self.sender("venue"), asset, name, decimals, cap))

    def do_instrument(self, words: Words) -> list[str]:
        name = words[0]
        base, quote = (self.assets.get(asset, 0) for asset in name.split("/"))
        number = self.instruments.setdefault(name, len(self.instruments) + 1)
        return self.send(
            make.add_instrument(
                self.sender("venue"), number, name, base_asset=base, quote_asset=quote,
                lot_units=_named(words, "lot", 1), scale_units=_named(words, "scale", 1),
                max_price_ticks=_named(words, "max-price", 1_000),
                max_quantity_lots=_named(words, "max-quantity", 1_000),
            )
        )  # fmt: skip

    def do_account(self, words: Words) -> list[str]:
        firm = self.firm(words[2]) if "firm" in words else 0
        return self.send(make.open_account(self.sender("venue"), self.account(words[0]), firm))

    def firm(self, name: str) -> int:
        return self.firms.setdefault(name, len(self.firms) + 1)

    def do_credential(self, words: Words) -> list[str]:
        name, _, whom = words[:3]
        scope, subject = Scope.ACCOUNT, 0
        if whom == "all":
            scope = Scope.ALL
        elif whom == "firm":
            scope, subject = Scope.FIRM, self.firm(words[3])
        else:
            subject = self.account(whom)
        number = self.credentials.setdefault(name, len(self.credentials) + 1)
        key = words[words.index("key") + 1] if "key" in words else name
        terms = self.terms(words)
        return self.send(
            add_credential(self.sender("venue"), number, key=key.encode(), scope=scope, subject=subject, **terms)
        )

    def do_restrict(self, words: Words) -> list[str]:
        number = self.credentials.get(words[0], 99)
        return self.send(set_credential(self.sender("venue"), number, **self.terms(words)))

    def do_revoke(self, words: Words) -> list[str]:
        return self.send(revoke_credential(self.sender("venue"), self.credentials.get(words[0], 99)))

    def terms(self, words: Words) -> dict[str, Any]:
        """Return permissions, expiry and networks of a credential."""
        after = dict(pairwise(words))
        permissions = Permission.NONE
        for word in after.get("may", "").split(",") if "may" in after else ():
            permissions |= Permission[word.upper()]
        return {
            "permissions": int(permissions),
            "expires_ns": _time_ns(after["until"]) if "until" in after else 0,
            "networks": tuple(network(word) for word in after["from"].split(",")) if "from" in after else (),
        }

    def do_rules(self, words: Words) -> list[str]:
        instrument = self.instruments.get(words[0], 99)
        rules = _fields(words, RULES)
        rules |= {
            name: values[words[words.index(word) + 1]] for word, (name, values) in CHOICES.items() if word in words
        }
        return self.send(make.set_rules(self.sender("venue"), instrument, **rules))

    def do_retention(self, words: Words) -> list[str]:
        return self.venue(
            CommandKind.SET_RETENTION,
            session_silence_s=_named(words, "silence", 0),
            transfer_age_s=_named(words, "age", 0),
            transfers=_named(words, "transfers", 0),
        )

    def do_capacity(self, words: Words) -> list[str]:
        return self.send(make.set_capacity(self.sender("venue"), **_fields(words, {name: name for name in CAPACITIES})))

    def do_status(self, words: Words) -> list[str]:
        status = text.STATUS_WORDS[words[1]]
        return self.send(make.set_status(self.sender("venue"), self.instruments.get(words[0], 99), status))

    def do_suspend(self, words: Words) -> list[str]:
        return self.venue(CommandKind.SUSPEND_ACCOUNT, account=self.account(words[0]))

    def do_resume(self, words: Words) -> list[str]:
        return self.venue(CommandKind.RESUME_ACCOUNT, account=self.account(words[0]))

    def do_limits(self, words: Words) -> list[str]:
        return self.send(make.set_limits(self.sender("venue"), self.account(words[0]), **_fields(words, LIMITS)))

    def do_kill(self, words: Words) -> list[str]:
        return self.venue(CommandKind.KILL)

    def do_revive(self, words: Words) -> list[str]:
        return self.venue(CommandKind.REVIVE)

    def do_tick(self, words: Words) -> list[str]:
        return self.send(make.command(CommandKind.TICK))

    def do_version(self, words: Words) -> list[str]:
        return self.send(make.command(CommandKind.SET_VERSION, quantity_lots=int(words[0])))

    def venue(self, kind: CommandKind, **fields: int) -> list[str]:
        return self.send(make.command(kind, self.sender("venue"), **fields))

    def do_deposit(self, words: Words) -> list[str]:
        return self.send(make.deposit(self.sender("venue"), *self.transfer(words)))

    def do_withdraw(self, words: Words) -> list[str]:
        return self.send(make.withdraw(self.sender(words[0]), *self.transfer(words)))

    def transfer(self, words: Words) -> tuple[int, int, int, int]:
        account, amount, asset = words[:3]
        self.transfers += 1
        transfer_id = _named(words, "transfer", self.transfers)
        return self.account(account), self.assets.get(asset, 99), int(amount), transfer_id

    # Sessions.

    def do_session(self, words: Words) -> list[str]:
        self.session_count += 1
        name, number = words[0], self.session_count
        if "as" in words:
            name = words[words.index("as") + 1]
            number |= self.credentials.get(name, 99) << 32
        self.sessions[name] = number
        flags = SessionFlags.CANCEL_ON_DISCONNECT if "cancel-on-disconnect" in words else SessionFlags.NONE
        answers = _named(words, "answers", 0)
        return self.send(make.open_session(number, self.account(words[0]), flags, answers))

    def do_reopen(self, words: Words) -> list[str]:
        owner = self.sender_name or words[0]
        return self.send(make.open_session(self.sessions[owner], self.account(words[0])))

    def do_disconnect(self, words: Words) -> list[str]:
        return self.send(make.disconnect(self.sessions.get(words[0], 99)))

    def do_close(self, words: Words) -> list[str]:
        return self.send(make.command(CommandKind.CLOSE_SESSION, self.sender(words[0])))

    # Orders.

    def do_place(self, words: Words) -> list[str]:
        account, side, lots, instrument, *how = words
        order_type, stop_ticks = _order_type(how)
        tifs = [TimeInForce[word.upper()] for word in how if word.upper() in TimeInForce.__members__]
        is_market = order_type in (OrderType.MARKET, OrderType.STOP)
        flags = OrderFlags.POST_ONLY if "post-only" in how else OrderFlags.NONE
        return self.send(
            make.place(
                self.sender(account),
                self.account(account),
                Side[side.upper()],
                int(lots),
                0 if is_market else _named(how, "@", 0),
                instrument=self.instruments.get(instrument, 99),
                order_type=order_type,
                tif=(tifs or [TimeInForce.IOC if is_market else TimeInForce.GTC])[0],
                stp=text.STP_WORDS[how[how.index("stp") + 1]] if "stp" in how else Stp.CANCEL_NEWEST,
                flags=flags | (OrderFlags.QUOTE_BUDGET if "budget" in how else OrderFlags.NONE),
                client_order_id=how[how.index("id") + 1] if "id" in how else "",
                stop_ticks=stop_ticks,
                display_lots=_named(how, "show", 0),
                expiry_ns=_time_ns(how[how.index("until") + 1]) if "until" in how else 0,
                credential=self.behind.get("credential", 0),
            )
        )

    def do_cancel(self, words: Words) -> list[str]:
        return self.own(CommandKind.CANCEL, words[0], **_order_name(words), **self.behind)

    def do_replace(self, words: Words) -> list[str]:
        lots = int(words[words.index("@") - 1 if "@" in words else -1])
        fields = {"price_ticks": _named(words, "@", 0), "quantity_lots": lots}
        return self.own(CommandKind.REPLACE, words[0], **_order_name(words), **fields, **self.behind)

    def do_mass_cancel(self, words: Words) -> list[str]:
        account, *choice = words
        sides = [Side[word.upper()] for word in choice if word.upper() in Side.__members__]
        instruments = [self.instruments.get(word, 99) for word in choice if "/" in word]
        return self.own(
            CommandKind.MASS_CANCEL, account, side=(sides or [Side.ANY])[0], instrument=(instruments or [0])[0]
        )

    def do_raw(self, words: Words) -> list[str]:
        fields = {name: _value(value) for name, value in (word.split("=") for word in words)}
        return self.send(make.raw(int(fields.pop("kind")), self.sender("venue"), **fields))

    def do_time(self, words: Words) -> list[str]:
        seconds = words[0].endswith("s")
        self.time_ns = int(words[0].removesuffix("s")) * (NANOSECONDS if seconds else 1)
        return []

    # Queries.

    def do_book(self, words: Words) -> list[str]:
        return text.book(*self.machine.inspect.depth(self.instruments[words[0]], 10))

    def do_orders(self, words: Words) -> list[str]:
        return text.orders(self.machine.inspect.orders(), self.names)

    def do_balances(self, words: Words) -> list[str]:
        account = self.accounts[words[0]] if words else None
        return text.balances(self.machine.inspect.balances(account), self.names)

    def do_sessions(self, words: Words) -> list[str]:
        return text.sessions(self.machine.inspect.sessions(), self.names)

    def do_accounts(self, words: Words) -> list[str]:
        return text.accounts(self.machine.inspect.accounts(), self.names)

    def do_credentials(self, words: Words) -> list[str]:
        return text.credentials(self.machine.inspect.credentials(), self.names)

    def do_instruments(self, words: Words) -> list[str]:
        return text.instruments(self.machine.inspect.instruments(), self.names)

    def do_assets(self, words: Words) -> list[str]:
        return text.assets(self.machine.inspect.assets(), self.names)

    def do_hash(self, words: Words) -> list[str]:
        where = f"after command {self.machine.sequence} at time {self.machine.time_ns}"
        return [f"{self.machine.state_hash:016x} {where}"]


def transcript(source: str, new_machine: Callable[[], Any]) -> str:
    """Run a file's commands; return the file with the answer under each command."""
    script = Script(new_machine())
    lines: Words = []
    for line in source.splitlines():
        if line.startswith(">"):
            lines += [line, *(f"  {answer}".rstrip() for answer in script.run(line[1:].strip()))]
        elif line.startswith("#") or not line:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _cut(line: str, pattern: str) -> tuple[str, str | None]:
    """Remove a modifier from a line; return both."""
    found = re.search(pattern, line)
    return (line.replace(found[0], ""), found[1]) if found else (line, None)


def _named(words: Words, name: str, default: int) -> int:
    """Return the number after a word."""
    return int(words[words.index(name) + 1]) if name in words else default


def _fields(words: Words, names: dict[str, str]) -> dict[str, int]:
    """Return the fields of a record that a line sets."""
    return {names[word]: int(words[index + 1]) for index, word in enumerate(words) if word in names}


def _order_type(how: Words) -> tuple[OrderType, int]:
    """Return an order's type and stop price."""
    for word, order_type in (("stop", OrderType.STOP), ("stop-limit", OrderType.STOP_LIMIT)):
        if word in how:
            return order_type, _named(how, word, 0)
    return OrderType.MARKET if "market" in how or "budget" in how else OrderType.LIMIT, 0


def _time_ns(word: str) -> int:
    """Return a time in seconds, or in nanoseconds with `ns`."""
    return int(word.removesuffix("ns")) if word.endswith("ns") else int(word) * NANOSECONDS


def _value(word: str) -> int | bytes:
    """Return a number, or the bytes of a text with escapes."""
    return (
        int(word) if re.fullmatch(r"-?\d+", word) else word.encode("ascii").decode("unicode_escape").encode("latin-1")
    )


def _order_name(words: Words) -> dict[str, Any]:
    if "id" in words:
        return {"client_order_id": words[words.index("id") + 1]}
    return {"order_id": int(words[1].removeprefix("#"))}

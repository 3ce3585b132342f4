"""Generate the commands of simulated clients: the setup of an exchange, then orders that match, and some invalid ones.

Pure: a random generator in, command records out. The session fills in session and request id.
"""

import random
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from smrx.wire.client_order_ids import pack_client_order_id
from smrx.wire.codes import (
    CommandKind,
    OrderFlags,
    OrderType,
    Scope,
    Side,
    Stp,
    TimeInForce,
)
from smrx.wire.command_list import CommandList, join
from smrx.wire.records import (
    COMMAND,
    COMMAND_LAYOUTS,
    DETAILS,
    DETAILS_LAYOUTS,
    KEY_SIZE,
    pack_symbol,
)

BASE: Final = 1
QUOTE: Final = 2
INSTRUMENT: Final = 1
_FOREVER_S: Final = (1 << 32) - 1
#: A narrow price range, so that orders match.
_PRICES: Final = (95, 105)
#: Orders have ids 1 to 11; those from here on have texts of more than eight characters.
_FIRST_LONG_ID: Final = 8
#: GTD orders expire after so many milliseconds times their quantity.
_EXPIRY_MS: Final = 50
_PLACE: Final = int(CommandKind.PLACE)
#: Of each kind: the layout of its commands and of their details, None for a kind without.
_LAYOUTS: Final = {int(kind): (COMMAND_LAYOUTS[kind], DETAILS_LAYOUTS.get(kind)) for kind in CommandKind}
_STPS: Final = tuple(Stp)


def setup(accounts: Sequence[int]) -> CommandList:
    """Return the first commands of the venue: two assets, one market, accounts with balances."""
    instrument = {"symbol": pack_symbol("A-B"), "base_asset": BASE, "quote_asset": QUOTE, "lot_units": 1}
    instrument |= {"scale_units": 1, "max_price_ticks": 1_000, "max_quantity_lots": 1_000}
    found = [
        _command(CommandKind.ADD_ASSET, asset=BASE, symbol=pack_symbol("A")),
        _command(CommandKind.ADD_ASSET, asset=QUOTE, symbol=pack_symbol("B")),
        _command(CommandKind.ADD_INSTRUMENT, instrument, instrument=INSTRUMENT),
        # The time of the state follows the clocks of a majority, which may jump by decades; no silence is that long.
        _command(CommandKind.SET_RETENTION, session_silence_s=_FOREVER_S, transfer_age_s=_FOREVER_S, transfers=1_000),
    ]
    return join([*found, new_accounts(accounts)])


def new_accounts(accounts: Sequence[int]) -> CommandList:
    """Return commands of the venue that open accounts with balances."""
    found = []
    for account in accounts:
        found += [
            _command(CommandKind.OPEN_ACCOUNT, account=account),
            _command(CommandKind.DEPOSIT, account=account, asset=BASE, amount=2_000, transfer_id=account),
            _command(CommandKind.DEPOSIT, account=account, asset=QUOTE, amount=200_000, transfer_id=account + 1000),
        ]
    return join(found)


def add_credential(number: int, account: int, permissions: int) -> CommandList:
    """Return a command of the venue that adds a credential of an account, under a key that no other has."""
    details = {"key": number.to_bytes(KEY_SIZE, "little"), "permissions": permissions, "subject": account}
    return _command(CommandKind.ADD_CREDENTIAL, details | {"scope": Scope.ACCOUNT}, number=number)


def revoke_credential(number: int) -> CommandList:
    """Return a command of the venue that revokes a credential."""
    return _command(CommandKind.REVOKE_CREDENTIAL, number=number)


def orders(rng: random.Random, account: int, count: int, time_ns: int = 0) -> CommandList:
    """Return random commands of a trader; with the time, some orders expire soon after it."""
    return join([_order(rng, account, time_ns) for _ in range(count)])


def _order(rng: random.Random, account: int, time_ns: int) -> CommandList:
    draw = rng.random()
    if draw < 0.62:
        return _place(rng, account, time_ns)
    word, details = _client_order_id(account, rng.randrange(1, 12))
    if draw < 0.78:
        return _command(CommandKind.CANCEL, details, account=account, client_order_id=word)
    if draw < 0.92:
        return _command(
            CommandKind.REPLACE, details, account=account, client_order_id=word,
            price_ticks=rng.randint(*_PRICES), quantity_lots=rng.randrange(1, 12),
        )  # fmt: skip
    if draw < 0.96:
        return _command(CommandKind.MASS_CANCEL, account=account, side=rng.randrange(3))
    # Malformed, or of an unknown kind: rejected, and the request id is used up all the same.
    return _command(rng.choice((200, _PLACE)), account=account, side=9)


def _place(rng: random.Random, account: int, time_ns: int) -> CommandList:
    """Return an order. Which terms it has follows from its other numbers, so that they need no draws of their own."""
    side = rng.choice((Side.BUY, Side.SELL))
    number, quantity = rng.randrange(12), rng.randrange(1, 12)
    word, details = _client_order_id(account, number)
    order = {
        "account": account, "instrument": INSTRUMENT, "side": side, "client_order_id": word, "quantity_lots": quantity,
        "stp": Stp.CANCEL_NEWEST,
    }  # fmt: skip
    if rng.random() < 0.1:
        order |= {"order_type": OrderType.MARKET, "tif": TimeInForce.IOC}
        if number % 2:
            order["order_type"] = OrderType.STOP
            details["stop_price_ticks"] = _PRICES[0] + quantity
        return _command(CommandKind.PLACE, details, **order)
    tif = rng.choice((TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
    flags = OrderFlags.POST_ONLY if tif == TimeInForce.GTC and rng.random() < 0.1 else OrderFlags.NONE
    stp, price = rng.choice(_STPS), rng.randint(*_PRICES)
    if tif == TimeInForce.GTC:
        if (price + quantity) % 4 == 0:
            details["display_lots"] = 1 + quantity // 3
        if time_ns and (price + number) % 4 == 0:
            tif = TimeInForce.GTD
            details["expiry_ns"] = time_ns + quantity * _EXPIRY_MS * 1_000_000 + number
    order |= {"order_type": OrderType.LIMIT, "tif": tif, "flags": flags, "stp": stp, "price_ticks": price}
    return _command(CommandKind.PLACE, details, **order)


def _client_order_id(account: int, number: int) -> tuple[int, dict[str, Any]]:
    """Return the field of a command for the id of an order, and its details; number 0 is no id."""
    if not number:
        return 0, {}
    text = str(number) if number < _FIRST_LONG_ID else f"account-{account}/order-{number}"
    word, long_text = pack_client_order_id(text)
    return word, {"client_order_id": long_text} if long_text else {}


def _command(kind: int, details: dict[str, Any] | None = None, **fields: Any) -> CommandList:
    layout, details_layout = _LAYOUTS.get(kind, (COMMAND, None))
    record = np.zeros(1, layout)
    record["kind"] = kind
    for name, value in fields.items():
        record[name] = value
    if not details:
        return CommandList(record.view(COMMAND))
    assert details_layout is not None
    more = np.zeros(1, details_layout)
    for name, value in details.items():
        more[name] = value
    record["details"] = 1
    return CommandList(record.view(COMMAND), more.view(DETAILS))

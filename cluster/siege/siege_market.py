"""Set up the market of a siege: two assets, one instrument, the accounts, and orders that rest in the book.

Owns the numbers that honest client and attacks agree on. Called once for each cluster.
"""

from pathlib import Path
from typing import Final

import numpy as np

from smrx import key_files
from smrx.client import Client
from smrx.wire.codes import CommandKind, OrderType, Side, TimeInForce
from smrx.wire.records import COMMAND

SYMBOL: Final = "BTC-USD"
INSTRUMENT: Final = 1
#: The accounts: of the honest client, of a client whose session is attacked, and of a customer who attacks.
HONEST: Final = 1
VICTIM: Final = 2
CUSTOMER: Final = 3
ACCOUNTS: Final = (HONEST, VICTIM, CUSTOMER)
#: On clusters with keys: the key file of the customer, beside the cluster file, and the number of its credential.
CUSTOMER_KEY: Final = "customer.key"
_CREDENTIAL: Final = 3
#: Prices at which the honest client buys: above all resting orders, and nothing is for sale.
HONEST_PRICES: Final = tuple(f"{200 + i}.00" for i in range(20))
_RESTING_PRICES: Final = 5_000
_FRAME: Final = 4_096


def quantity(number: int) -> str:
    """Return the quantity of the honest client's order with a number; it tells one order from the next."""
    return f"{1 + number % 97}.0000"


def set_up(venue: Client, resting: int) -> None:
    """Create assets, instrument and accounts, and place resting orders of the customer."""
    venue.add_asset("BTC", 8)
    venue.add_asset("USD", 6)
    venue.add_instrument(SYMBOL, "BTC", "USD", tick="0.01", lot="0.0001", max_price="100000", max_quantity="1000")
    for account in ACCOUNTS:
        venue.open_account(account)
        venue.deposit(account, "USD", "1000000000", account)
    for first in range(0, resting, _FRAME):
        venue.submit(resting_orders(first, min(_FRAME, resting - first)))


def add_customer_key(venue: Client, directory: Path) -> None:
    """Give the customer, who attacks, a valid credential of its own."""
    pair = key_files.generate()
    key_files.write(directory / CUSTOMER_KEY, pair, "a customer who attacks")
    venue.add_credential(_CREDENTIAL, pair.public, ["read", "trade"], account=CUSTOMER)


def resting_orders(first: int, count: int) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """Return commands that place small orders of the customer, all below the honest client's prices."""
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["account"], rows["instrument"] = CommandKind.PLACE, CUSTOMER, INSTRUMENT
    rows["side"], rows["order_type"], rows["tif"] = Side.BUY, OrderType.LIMIT, TimeInForce.GTC
    rows["price_ticks"] = 1 + np.arange(first, first + count) % _RESTING_PRICES
    rows["quantity_lots"] = 100
    return rows

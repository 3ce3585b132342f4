"""What a client can do, each thing once: names and decimals in, commands and requests out, answers in, results out.

Every verb is a generator of steps; the blocking and the asyncio client run it and offer it under its own name, with
its own arguments and its own docstring. Owns the market cache; no I/O, no clock.
"""

from smrx.client.market_setup import MarketSetup
from smrx.client.order_operations import OrderOperations
from smrx.client.query_operations import QueryOperations


class Operations(OrderOperations, MarketSetup, QueryOperations):
    """The verbs of one client of one account."""

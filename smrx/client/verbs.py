"""What a client can do, each thing once: names and decimals in, commands and requests out, answers in, results out.

Every verb is a generator of steps; the blocking and the asyncio client run it and offer it under its own name, with
its own arguments and its own docstring. Owns the market cache; no I/O, no clock.
"""

from smrx.client.market_setup import Setup
from smrx.client.trading import Trading
from smrx.client.views import Views


class Verbs(Trading, Setup, Views):
    """The verbs of one client of one account."""

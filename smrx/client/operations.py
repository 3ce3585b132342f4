"""Combine all operations of a client in one class.

An operation takes names and decimals, sends commands or queries, and returns a typed result. It is a generator of I/O
steps; the blocking and the asyncio client run it and offer it as a method (see client_methods.py). No I/O, no clock.
"""

from smrx.client.credential_operations import CredentialOperations
from smrx.client.market_setup import MarketSetup
from smrx.client.order_operations import OrderOperations
from smrx.client.query_operations import QueryOperations


class Operations(OrderOperations, MarketSetup, CredentialOperations, QueryOperations):
    """The operations of a client of one account."""

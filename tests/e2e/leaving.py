"""A trader in a process of its own, to be killed: `python -m tests.e2e.leaving CONFIG ACCOUNT COD PRICE...`.

Places a buy at each price, prints "ready", and does nothing more, for as long as its standard input stays open.
"""

import sys

from smrx.client import Client
from smrx.config import load


def main() -> None:
    config, account, cancel_on_disconnect, *prices = sys.argv[1:]
    with Client(load(config), account=int(account), cancel_on_disconnect=cancel_on_disconnect == "yes") as client:
        for price in prices:
            client.place_limit("BTC-USD", "buy", price, "1")
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

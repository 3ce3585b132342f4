"""Place orders and wait to be killed: `python -m tests.e2e.order_placing_client CONFIG ACCOUNT COD PRICE...`.

Places a buy at each price, prints "ready", and does nothing more until its standard input closes.
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

"""`smrx book`: show an order book. Parses, calls the client, prints."""

from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client

if TYPE_CHECKING:
    from smrx.client.read_levels import Level


@click.command()
@click.argument("symbol")
@click.option("--levels", type=click.IntRange(1, 1000), default=10, show_default=True, help="Price levels a side.")
@options.level_options
@options.cluster_option
@options.json_option
def book(symbol: str, levels: int, level: "Level", as_json: bool) -> None:
    """Show the order book of an instrument.

    \b
    Example:
      smrx book BTC-USD
      smrx book BTC-USD --levels 3 --json
      smrx book BTC-USD --level any --max-age 2
    """
    with venue_client.connect() as client:
        found = client.depth(symbol, levels, level=level)
    if as_json:
        output.print_json(found)
        return
    rows: list[list[object]] = []
    for i in range(max(len(found.bids), len(found.asks))):
        bid = found.bids[i] if i < len(found.bids) else None
        ask = found.asks[i] if i < len(found.asks) else None
        left = [output.NOTHING] * 3 if bid is None else [bid.orders, bid.quantity, bid.price]
        right = [output.NOTHING] * 3 if ask is None else [ask.price, ask.quantity, ask.orders]
        rows.append([*left, *right])
    click.echo(f"{symbol} after command {found.sequence}")
    output.print_table(("ORDERS", "BID QTY", "BID", "ASK", "ASK QTY", "ORDERS"), rows, empty="the book is empty")

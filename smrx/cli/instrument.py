"""`smrx instrument`: what can be traded. Parses, calls the client, prints."""

import click

from smrx.cli import connect, options, output


@click.group()
def instrument() -> None:
    """Add and list what can be traded.

    \b
    Example:
      smrx instrument add BTC-USD --base BTC --quote USD --tick 0.01 --lot 0.0001
    """


@instrument.command()
@click.argument("symbol")
@click.option("--base", required=True, help="The asset that is traded.")
@click.option("--quote", required=True, help="The asset it is paid in.")
@click.option("--tick", required=True, help="Smallest step of the price, in quote per base.")
@click.option("--lot", required=True, help="Smallest step of the quantity, in base.")
@click.option("--max-price", help="Highest price of an order; by default as high as the exchange can count.")
@click.option("--max-quantity", help="Largest quantity of an order; by default as large as the exchange can count.")
@options.config_option
@options.json_option
def add(
    symbol: str,
    base: str,
    quote: str,
    tick: str,
    lot: str,
    max_price: str | None,
    max_quantity: str | None,
    as_json: bool,
) -> None:
    """Add an instrument.

    \b
    Example:
      smrx instrument add BTC-USD --base BTC --quote USD --tick 0.01 --lot 0.0001
    """
    with connect.client() as client:
        answer = client.add_instrument(symbol, base, quote, tick, lot, max_price=max_price, max_quantity=max_quantity)
    output.print_answer(answer, f"instrument {symbol} has id {answer.instrument}", as_json)


@instrument.command("list")
@options.config_option
@options.json_option
def list_(as_json: bool) -> None:
    """List the instruments.

    \b
    Example:
      smrx instrument list
    """
    from smrx.client.decimals import to_text
    from smrx.engine.codes import InstrumentStatus

    with connect.client() as client:
        found = client.instruments()
    rows = [
        {
            "id": row.id,
            "symbol": row.symbol,
            "base": row.base.symbol,
            "quote": row.quote.symbol,
            "tick": to_text(row.tick),
            "lot": to_text(row.lot),
            "max_price": row.price_text(row.max_price_ticks),
            "max_quantity": row.quantity_text(row.max_quantity_lots),
            "status": InstrumentStatus(row.status).name,
        }
        for row in found
    ]
    if as_json:
        output.print_json(rows)
        return
    columns = ("ID", "SYMBOL", "BASE", "QUOTE", "TICK", "LOT", "MAX PRICE", "MAX QUANTITY", "STATUS")
    output.print_table(columns, [list(row.values()) for row in rows], empty="no instruments")

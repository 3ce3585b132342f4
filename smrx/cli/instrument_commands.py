"""`smrx instrument`: the instruments of the exchange. Parses, calls the client, prints."""

from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from smrx.client.read_levels import Level


@click.group()
def instrument() -> None:
    """Add, configure, halt and list instruments.

    \b
    Example:
      smrx instrument add BTC-USD --base BTC --quote USD --tick 0.01 --lot 0.0001
    """


@instrument.command()
@click.argument("symbol")
@click.option("--base", required=True, help="The asset that is traded.")
@click.option("--quote", required=True, help="The asset that prices are in.")
@click.option("--tick", required=True, help="Price increment, in quote per base.")
@click.option("--lot", required=True, help="Quantity increment, in base.")
@click.option("--max-price", help="Highest price of an order; the largest representable one if not given.")
@click.option("--max-quantity", help="Largest quantity of an order; the largest representable one if not given.")
@options.cluster_option
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

    SYMBOL has 1 to 24 characters of A-Z 0-9 - . / _

    \b
    Example:
      smrx instrument add BTC-USD --base BTC --quote USD --tick 0.01 --lot 0.0001
    """
    with venue_client.connect() as client:
        answer = client.add_instrument(symbol, base, quote, tick, lot, max_price=max_price, max_quantity=max_quantity)
    output.print_answer(answer, f"instrument {symbol} has id {answer.instrument}", as_json)


def _set_status(symbol: str, status: str, as_json: bool) -> None:
    with venue_client.connect() as client:
        answer = client.set_status(symbol, status)
    cancelled = f", {output.count(answer.cancelled, 'order')} cancelled" if answer.cancelled else ""
    output.print_answer(answer, f"instrument {symbol} is {answer.status}{cancelled}", as_json)


@instrument.command()
@click.argument("symbol")
@options.cluster_option
@options.json_option
def halt(symbol: str, as_json: bool) -> None:
    """Halt trading: orders can be cancelled, but not placed or replaced.

    \b
    Example:
      smrx instrument halt BTC-USD
    """
    _set_status(symbol, "HALTED", as_json)


@instrument.command("cancel-only")
@click.argument("symbol")
@options.cluster_option
@options.json_option
def cancel_only(symbol: str, as_json: bool) -> None:
    """Allow only cancels, as before an instrument is closed.

    \b
    Example:
      smrx instrument cancel-only BTC-USD
    """
    _set_status(symbol, "CANCEL_ONLY", as_json)


@instrument.command()
@click.argument("symbol")
@options.cluster_option
@options.json_option
def resume(symbol: str, as_json: bool) -> None:
    """Start or resume trading, whatever the status of the instrument is.

    \b
    Example:
      smrx instrument resume BTC-USD
    """
    _set_status(symbol, "TRADING", as_json)


@instrument.command()
@click.argument("symbol")
@options.cluster_option
@options.json_option
def close(symbol: str, as_json: bool) -> None:
    """Close an instrument and cancel every open order in it.

    \b
    Example:
      smrx instrument close BTC-USD
    """
    _set_status(symbol, "CLOSED", as_json)


@instrument.command()
@click.argument("symbol")
@click.option("--maker-fee", metavar="RATE", help="Fee of the resting order; a negative one is a rebate.")
@click.option("--taker-fee", metavar="RATE", help="Fee of the incoming order.")
@click.option("--band", metavar="RATE", help="Largest distance of a limit price from the last trade.")
@click.option(
    "--collar",
    metavar="RATE",
    help="Largest distance that a market or triggered stop order may trade from a reference.",
)
@click.option(
    "--collar-reference",
    type=click.Choice(["best-price", "last-trade"], case_sensitive=False),
    help="The reference of the collar: the best opposite price when the order enters, or the last trade price.",
)
@click.option("--min-price", metavar="PRICE", help="Lowest price of an order.")
@click.option("--min-quantity", metavar="QUANTITY", help="Smallest quantity of an order.")
@click.option("--min-notional", metavar="AMOUNT", help="Smallest notional of an order, in the quote asset.")
@click.option("--max-notional", metavar="AMOUNT", help="Greatest notional of an order, in the quote asset.")
@click.option(
    "--notional-of-market/--no-notional-of-market",
    default=None,
    help="Whether the notional limits hold for market orders, too, at the best opposite price.",
)
@options.cluster_option
@options.json_option
def rules(
    symbol: str,
    maker_fee: str | None,
    taker_fee: str | None,
    band: str | None,
    collar: str | None,
    collar_reference: str | None,
    min_price: str | None,
    min_quantity: str | None,
    min_notional: str | None,
    max_notional: str | None,
    notional_of_market: bool | None,
    as_json: bool,
) -> None:
    """Set fees, price band, collar and order limits. A rule that is not given does not change; 0 removes a rule.

    A RATE has a unit: 0.05% or 5bps. Fees can change only while the instrument has no open orders.

    \b
    Example:
      smrx instrument rules BTC-USD --maker-fee -0.01% --taker-fee 0.05% --band 10% --collar 5%
      smrx instrument rules BTC-USD --min-notional 10 --max-notional 5000000
    """
    given = {
        "maker_fee": maker_fee,
        "taker_fee": taker_fee,
        "band": band,
        "collar": collar,
        "collar_reference": collar_reference,
        "min_price": min_price,
        "min_quantity": min_quantity,
        "min_notional": min_notional,
        "max_notional": max_notional,
    }
    if notional_of_market is None and all(value is None for value in given.values()):
        raise CliError(
            Exit.USAGE,
            "no rule is given; give at least one (`smrx instrument list` shows the present rules)",
        )
    with venue_client.connect() as client:
        answer = client.set_rules(symbol, notional_of_market=notional_of_market, **given)
    text = (
        f"instrument {symbol}: maker fee {answer.maker_fee}, taker fee {answer.taker_fee}, "
        f"band {_rule(answer.band)}, collar {_rule(answer.collar)}, min price {_rule(answer.min_price)}, "
        f"min quantity {_rule(answer.min_quantity)}, "
        f"notional {_rule(answer.min_notional)} to {_rule(answer.max_notional)}"
    )
    output.print_answer(answer, text, as_json)


def _rule(value: str | None) -> str:
    return "none" if value is None else value


@instrument.command("list")
@options.level_options
@options.cluster_option
@options.json_option
def list_(level: "Level", as_json: bool) -> None:
    """List the instruments with their rules and last prices.

    \b
    Example:
      smrx instrument list
    """
    from smrx.client.decimals import to_text
    from smrx.client.result_builders import instrument_rules
    from smrx.wire.codes import InstrumentStatus

    with venue_client.connect() as client:
        found = client.instruments(level=level)
    rows = [
        {
            "id": row.id,
            "symbol": row.symbol,
            "status": InstrumentStatus(row.status).name,
            "last_price": row.price_text(row.last_price_ticks) if row.last_price_ticks else None,
            "base": row.base.symbol,
            "quote": row.quote.symbol,
            "tick": to_text(row.tick),
            "lot": to_text(row.lot),
            "max_price": row.price_text(row.max_price_ticks),
            "max_quantity": row.quantity_text(row.max_quantity_lots),
            **instrument_rules(row),
        }
        for row in found
    ]
    if as_json:
        output.print_json(rows)
        return
    columns = [name.replace("_", " ").upper() for name in rows[0]] if rows else []
    output.print_table(columns, [output.cells(row) for row in rows], empty="no instruments")

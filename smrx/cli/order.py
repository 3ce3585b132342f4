"""`smrx order`: orders. Parses, calls the client, prints."""

import click

from smrx.cli import connect, options, output
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure

_account_option = click.option("--account", type=click.IntRange(min=1), required=True, help="Whose order it is.")
_order_option = click.option("--order-id", type=click.IntRange(min=1), help="The order, by the exchange's id.")
_client_order_option = click.option(
    "--client-order-id", type=click.IntRange(min=1), help="The order, by the id its owner gave it."
)


@click.group()
def order() -> None:
    """Place, cancel, reduce and list orders.

    \b
    Example:
      smrx order place --account 7 BTC-USD buy 0.5 --price 50000.00
    """


@order.command()
@_account_option
@click.argument("symbol")
@click.argument("side", type=click.Choice(["buy", "sell"], case_sensitive=False))
@click.argument("quantity")
@click.option("--price", help="Limit price; without one it is a market order.")
@click.option(
    "--tif",
    type=click.Choice(["gtc", "ioc", "fok"], case_sensitive=False),
    help="How long it lives: gtc rests, ioc takes what it can, fok fills whole or not. [default: gtc]",
)
@click.option("--post-only", is_flag=True, help="Refuse the order if any part of it would take.")
@click.option("--client-order-id", type=click.IntRange(min=1), default=None, help="A name of your own for the order.")
@options.config_option
@options.json_option
def place(
    account: int,
    symbol: str,
    side: str,
    quantity: str,
    price: str | None,
    tif: str | None,
    post_only: bool,
    client_order_id: int | None,
    as_json: bool,
) -> None:
    """Place an order for QUANTITY of SYMBOL.

    \b
    Example:
      smrx order place --account 7 BTC-USD buy 0.5 --price 50000.00
      smrx order place --account 7 BTC-USD sell 0.1
    """
    if price is None and (post_only or tif not in (None, "ioc")):
        raise Failure(
            Exit.USAGE, "a market order takes what it can at once: expected --tif ioc or none, no --post-only"
        )
    name = client_order_id or 0
    with connect.client() as client:
        if price is None:
            answer = client.place_market(symbol, side, quantity, client_order_id=name, account=account)
        else:
            answer = client.place_limit(
                symbol,
                side,
                price,
                quantity,
                tif=tif or "gtc",
                post_only=post_only,
                client_order_id=name,
                account=account,
            )
    why = f" ({answer.reason})" if answer.reason else ""
    told = f"order {answer.order_id}: {answer.state}{why}, filled {answer.filled}, remaining {answer.remaining}"
    output.print_answer(answer, told, as_json)


@order.command()
@_account_option
@_order_option
@_client_order_option
@click.option("--all", "everything", is_flag=True, help="All open orders of the account, oldest first.")
@click.option("--symbol", help="With --all: of this instrument only.")
@click.option("--side", type=click.Choice(["buy", "sell"], case_sensitive=False), help="With --all: of this side only.")
@options.config_option
@options.json_option
def cancel(
    account: int,
    order_id: int | None,
    client_order_id: int | None,
    everything: bool,
    symbol: str | None,
    side: str | None,
    as_json: bool,
) -> None:
    """Cancel one order, or all of an account.

    \b
    Example:
      smrx order cancel --account 7 --order-id 12
      smrx order cancel --account 7 --all --symbol BTC-USD
    """
    _exactly_one(order_id, client_order_id, everything or None)
    if not everything and (symbol or side):
        raise Failure(Exit.USAGE, "--symbol and --side go with --all")
    with connect.client() as client:
        if everything:
            mass = client.mass_cancel(symbol, side, account=account)
            output.print_answer(mass, f"orders cancelled: {mass.cancelled}", as_json)
            return
        answer = client.cancel(order_id=order_id, client_order_id=client_order_id, account=account)
    output.print_answer(answer, f"order {answer.order_id}: {answer.state}", as_json)


@order.command()
@_account_option
@_order_option
@_client_order_option
@click.option("--quantity", required=True, help="The new total quantity, smaller than before.")
@options.config_option
@options.json_option
def reduce(account: int, order_id: int | None, client_order_id: int | None, quantity: str, as_json: bool) -> None:
    """Make an order smaller; it keeps its place in the queue.

    \b
    Example:
      smrx order reduce --account 7 --order-id 12 --quantity 0.25
    """
    _exactly_one(order_id, client_order_id)
    with connect.client() as client:
        answer = client.reduce(quantity, order_id=order_id, client_order_id=client_order_id, account=account)
    output.print_answer(answer, f"order {answer.order_id}: {answer.state}, remaining {answer.remaining}", as_json)


@order.command("list")
@click.option("--account", type=click.IntRange(min=1), help="Of this account only.")
@click.option("--symbol", help="Of this instrument only.")
@options.config_option
@options.json_option
def list_(account: int | None, symbol: str | None, as_json: bool) -> None:
    """List open orders, oldest first.

    \b
    Example:
      smrx order list --account 7
    """
    with connect.client() as client:
        found = client.orders(symbol, account=account, everyone=account is None)
    if as_json:
        output.print_json(found)
        return
    rows = [
        (row.order_id, row.account, row.symbol, row.side, row.price, row.quantity, row.filled, row.remaining)
        for row in found
    ]
    columns = ("ORDER", "ACCOUNT", "SYMBOL", "SIDE", "PRICE", "QUANTITY", "FILLED", "REMAINING")
    output.print_table(columns, rows, empty="no open orders")


def _exactly_one(order_id: int | None, client_order_id: int | None, *others: bool | None) -> None:
    if sum(value is not None for value in (order_id, client_order_id, *others)) != 1:
        or_all = " or --all" if others else ""
        raise Failure(Exit.USAGE, f"expected exactly one of --order-id, --client-order-id{or_all}")

"""`smrx order`: place, change, cancel and list orders. Parses, calls the client, prints."""

from typing import TYPE_CHECKING, Final

import click

from smrx.cli import options, output, venue_client
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from smrx.client.read_levels import Level
    from smrx.client.results import OrderResult

_SIDE: Final = click.Choice(["buy", "sell"], case_sensitive=False)

_account_option = options.account_option("The account that owns the order.")
_order_option = click.option("--order-id", type=click.IntRange(min=1), help="Id of the order, given by the exchange.")
_client_order_option = click.option(
    "--client-order-id", type=options.ClientOrderId(), help="Id of the order, chosen by its owner: 1 to 64 characters."
)


@click.group()
def order() -> None:
    """Place, replace, cancel, reduce and list orders.

    \b
    Example:
      smrx order place --account 7 BTC-USD buy 0.5 --price 50000.00
    """


@order.command()
@_account_option
@click.argument("symbol")
@click.argument("side", type=_SIDE)
@click.argument("quantity", required=False)
@click.option("--price", "--limit", help="Limit price; a market order if not given.")
@click.option("--stop", help="Stop price: the order becomes active when the last trade reaches it.")
@click.option(
    "--tif",
    type=click.Choice(["gtc", "ioc", "fok", "gtd"], case_sensitive=False),
    help="Time in force: gtc until cancelled, ioc immediate or cancel, fok fill or kill, gtd until --gtd. "
    "[default: gtc with a price, else ioc]",
)
@click.option("--display", metavar="QUANTITY", help="Quantity shown in the book (an iceberg order); needs a price.")
@click.option(
    "--gtd",
    metavar="TIME",
    callback=options.parse_expiry,
    help="Expiry time: 2030-01-31T17:00:00Z or seconds since 1970, both with up to nine decimal places, or relative: "
    "+90s, +15m, +8h, +1d.",
)
@click.option("--budget", metavar="AMOUNT", help="Buy at the market for this amount of the quote asset, fees included.")
@click.option(
    "--stp",
    type=click.Choice(["none", "cancel-newest", "cancel-oldest", "cancel-both", "decrement"], case_sensitive=False),
    default="cancel-newest",
    show_default=True,
    help="Self-trade prevention: what to do when it would match an order of the same account.",
)
@click.option("--post-only", is_flag=True, help="Refuse the order if any part of it would match at once.")
@click.option(
    "--client-order-id",
    type=options.ClientOrderId(),
    help="Your own id for the order: 1 to 64 printable ASCII characters. While an order of the account with this "
    "id is open, or a pending stop, the exchange refuses a second one (exit code 4), so repeating this command does "
    "not place the order twice. Once the order is filled, cancelled or expired, its id is free again, and repeating "
    "the command places a new order.",
)
@options.cluster_option
@options.json_option
def place(
    account: int,
    symbol: str,
    side: str,
    quantity: str | None,
    price: str | None,
    stop: str | None,
    tif: str | None,
    display: str | None,
    gtd: str | int | None,
    budget: str | None,
    stp: str,
    post_only: bool,
    client_order_id: str | None,
    as_json: bool,
) -> None:
    """Place an order for QUANTITY of SYMBOL, or for a --budget.

    \b
    Example:
      smrx order place --account 7 BTC-USD buy 0.5 --price 50000.00
      smrx order place --account 7 BTC-USD sell 0.1
      smrx order place --account 7 BTC-USD buy --budget 1000.00
      smrx order place --account 7 BTC-USD sell 2 --price 51000 --display 0.1 --gtd +8h --post-only
      smrx order place --account 7 BTC-USD sell 0.5 --stop 48000 --limit 47900 --gtd +8h --client-order-id desk-3/17
    """
    if (quantity is None) == (budget is None):
        raise CliError(Exit.USAGE, "give either QUANTITY or --budget")
    allowed = (None, "ioc") if stop is None else (None, "ioc", "gtd")
    if price is None and (post_only or tif not in allowed):
        raise CliError(
            Exit.USAGE,
            "a market order, or a stop without --limit, cannot rest in the book: leave out --post-only and every --tif "
            f"but {' and '.join(name for name in allowed if name)}, or give a --price",
        )
    with venue_client.connect(account) as client:
        answer = client.place(
            symbol,
            side,
            quantity,
            price=price,
            stop=stop,
            tif=tif,
            display=display,
            expires=gtd,
            budget=budget,
            stp=stp,
            post_only=post_only,
            client_order_id=client_order_id,
            account=account,
        )
    output.print_answer(answer, _order_text(answer), as_json)


@order.command()
@_account_option
@click.argument("symbol")
@_order_option
@_client_order_option
@click.option("--price", "--limit", help="New limit price; leave it out for a stop order without one.")
@click.option("--quantity", required=True, help="New total quantity, including the part already filled.")
@options.cluster_option
@options.json_option
def replace(
    account: int,
    symbol: str,
    order_id: int | None,
    client_order_id: str | None,
    price: str | None,
    quantity: str,
    as_json: bool,
) -> None:
    """Change the price and quantity of an order.

    The order keeps its place in the queue only if the price is the same and the quantity is smaller. If the exchange
    refuses the change, the order stays as it was.

    \b
    Example:
      smrx order replace --account 7 BTC-USD --order-id 12 --price 49990.00 --quantity 0.5
    """
    _exactly_one(order_id, client_order_id)
    with venue_client.connect(account) as client:
        answer = client.replace(
            symbol, price, quantity, order_id=order_id, client_order_id=client_order_id, account=account
        )
    output.print_answer(answer, _order_text(answer), as_json)


@order.command()
@_account_option
@_order_option
@_client_order_option
@click.option("--all", "everything", is_flag=True, help="Cancel all open orders of the account, oldest first.")
@click.option("--symbol", help="With --all: only orders in this instrument.")
@click.option("--side", type=_SIDE, help="With --all: only orders of this side.")
@options.cluster_option
@options.json_option
def cancel(
    account: int,
    order_id: int | None,
    client_order_id: str | None,
    everything: bool,
    symbol: str | None,
    side: str | None,
    as_json: bool,
) -> None:
    """Cancel one order, or all orders of an account.

    \b
    Example:
      smrx order cancel --account 7 --order-id 12
      smrx order cancel --account 7 --client-order-id desk-3/17
      smrx order cancel --account 7 --all --symbol BTC-USD
    """
    _exactly_one(order_id, client_order_id, everything or None)
    if not everything and (symbol or side):
        raise CliError(Exit.USAGE, "--symbol and --side need --all")
    with venue_client.connect(account) as client:
        if everything:
            mass = client.mass_cancel(symbol, side, account=account)
            output.print_answer(mass, f"{output.count(mass.cancelled, 'order')} cancelled", as_json)
            return
        answer = client.cancel(order_id=order_id, client_order_id=client_order_id, account=account)
    output.print_answer(answer, f"order {answer.order_id}: {answer.state}", as_json)


@order.command()
@_account_option
@_order_option
@_client_order_option
@click.option("--quantity", required=True, help="New total quantity, smaller than before.")
@options.cluster_option
@options.json_option
def reduce(account: int, order_id: int | None, client_order_id: str | None, quantity: str, as_json: bool) -> None:
    """Reduce the quantity of an order; it keeps its place in the queue.

    \b
    Example:
      smrx order reduce --account 7 --order-id 12 --quantity 0.25
    """
    _exactly_one(order_id, client_order_id)
    with venue_client.connect(account) as client:
        answer = client.reduce(quantity, order_id=order_id, client_order_id=client_order_id, account=account)
    output.print_answer(answer, f"order {answer.order_id}: {answer.state}, remaining {answer.remaining}", as_json)


@order.command("list")
@click.option("--account", type=click.IntRange(min=1), help="Only orders of this account.")
@click.option("--symbol", help="Only orders in this instrument.")
@options.level_options
@options.cluster_option
@options.json_option
def list_(account: int | None, symbol: str | None, level: "Level", as_json: bool) -> None:
    """List open orders and pending stops, oldest first.

    \b
    Example:
      smrx order list --account 7
    """
    with venue_client.connect() as client:
        found = client.orders(symbol, account=account, all_accounts=account is None, level=level)
    if as_json:
        output.print_json(found)
        return
    rows = [
        [
            *(
                row.order_id,
                row.client_order_id or output.NOTHING,
                row.account,
                row.symbol,
                row.side,
                row.order_type,
                row.stop or output.NOTHING,
            ),
            *(row.price or output.NOTHING, row.quantity, row.filled, row.remaining, row.shown, row.hidden),
            *(row.tif, row.expires or output.NOTHING, row.stp),
        ]
        for row in found
    ]
    columns = (
        *(
            "ORDER",
            "CLIENT ORDER",
            "ACCOUNT",
            "SYMBOL",
            "SIDE",
            "TYPE",
            "STOP",
            "PRICE",
            "QUANTITY",
            "FILLED",
            "REMAINING",
        ),
        *("SHOWN", "HIDDEN", "TIF", "EXPIRES", "STP"),
    )
    output.print_table(columns, rows, empty="no open orders")


def _order_text(answer: "OrderResult") -> str:
    why = f" ({answer.reason_text}: {answer.reason})" if answer.reason else ""
    return f"order {answer.order_id}: {answer.state}{why}, filled {answer.filled}, remaining {answer.remaining}"


def _exactly_one(order_id: int | None, client_order_id: str | None, *others: bool | None) -> None:
    if sum(value is not None for value in (order_id, client_order_id, *others)) != 1:
        or_all = ", --all" if others else ""
        raise CliError(Exit.USAGE, f"give exactly one of --order-id, --client-order-id{or_all}")

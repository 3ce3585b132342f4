"""`smrx account`: accounts and their money. Parses, calls the client, prints."""

import time
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smrx.client.results import Balance

_account_argument = click.argument("account_id", metavar="ACCOUNT", type=click.IntRange(min=1))


@click.group()
def account() -> None:
    """Open and limit accounts, move money in and out, show balances.

    \b
    Example:
      smrx account open 7
    """


@account.command("open")
@_account_argument
@options.config_option
@options.json_option
def open_(account_id: int, as_json: bool) -> None:
    """Open an account.

    \b
    Example:
      smrx account open 7
    """
    with venue_client.connect() as client:
        answer = client.open_account(account_id)
    output.print_answer(answer, f"account {account_id} is open", as_json)


def _transfer_id(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int:
    # Two transfers of one nanosecond would need two operators with one clock; the exchange refuses the second.
    return time.time_ns() if value is None else value


_transfer_option = click.option(
    "--transfer-id",
    type=click.IntRange(min=1),
    callback=_transfer_id,
    help="Name of the transfer: repeated with the same name it is made once. By default a new one.",
)


@account.command()
@_account_argument
@click.argument("amount")
@click.argument("asset")
@_transfer_option
@options.config_option
@options.json_option
def deposit(account_id: int, amount: str, asset: str, transfer_id: int, as_json: bool) -> None:
    """Bring AMOUNT of ASSET into an account.

    \b
    Example:
      smrx account deposit 7 1000000.00 USD
    """
    with venue_client.connect() as client:
        answer = client.deposit(account_id, asset, amount, transfer_id)
    done = "was made before" if answer.already_done else f"done, {answer.available} {asset} available"
    output.print_answer(answer, f"transfer {transfer_id} {done}", as_json)


@account.command()
@_account_argument
@click.argument("amount")
@click.argument("asset")
@_transfer_option
@options.config_option
@options.json_option
def withdraw(account_id: int, amount: str, asset: str, transfer_id: int, as_json: bool) -> None:
    """Take AMOUNT of ASSET out of an account.

    \b
    Example:
      smrx account withdraw 7 250.00 USD
    """
    with venue_client.connect() as client:
        answer = client.withdraw(account_id, asset, amount, transfer_id)
    done = "was made before" if answer.already_done else f"done, {answer.available} {asset} available"
    output.print_answer(answer, f"transfer {transfer_id} {done}", as_json)


@account.command()
@_account_argument
@options.config_option
@options.json_option
def suspend(account_id: int, as_json: bool) -> None:
    """Let an account cancel its orders and nothing else; they stay open.

    \b
    Example:
      smrx account suspend 7
    """
    with venue_client.connect() as client:
        answer = client.suspend_account(account_id)
    output.print_answer(answer, f"account {account_id} is suspended", as_json)


@account.command()
@_account_argument
@options.config_option
@options.json_option
def resume(account_id: int, as_json: bool) -> None:
    """End an account's suspension.

    \b
    Example:
      smrx account resume 7
    """
    with venue_client.connect() as client:
        answer = client.resume_account(account_id)
    output.print_answer(answer, f"account {account_id} is active", as_json)


@account.command()
@_account_argument
@click.option("--open-orders", type=click.IntRange(min=0), help="Orders open at once.")
@click.option("--open-notional", metavar="AMOUNT", help="Worth of all open orders in one quote asset.")
@click.option("--order-notional", metavar="AMOUNT", help="Worth of one order, in its quote asset.")
@click.option("--order-quantity", metavar="QUANTITY", help="Quantity of one order.")
@click.option("--asset", help="Read amounts as decimals of this asset; else they are minimal units.")
@click.option("--symbol", help="Read the quantity as a decimal of this instrument; else it is in lots.")
@options.config_option
@options.json_option
def limits(
    account_id: int,
    open_orders: int | None,
    open_notional: str | None,
    order_notional: str | None,
    order_quantity: str | None,
    asset: str | None,
    symbol: str | None,
    as_json: bool,
) -> None:
    """Set limits of an account; one that is not named stays as it is, 0 takes it away.

    The exchange counts amounts in minimal units and quantities in lots, whatever asset or instrument an order is in.

    \b
    Example:
      smrx account limits 7 --open-orders 100 --order-notional 250000.00 --asset USD
    """
    if open_orders is None and open_notional is None and order_notional is None and order_quantity is None:
        raise CliError(
            Exit.USAGE,
            "expected one or more of --open-orders, --open-notional, --order-notional, --order-quantity, found none",
        )
    with venue_client.connect() as client:
        answer = client.set_limits(
            account_id,
            open_orders=open_orders,
            open_notional=open_notional,
            order_notional=order_notional,
            order_quantity=order_quantity,
            asset=asset,
            symbol=symbol,
        )
    told = (
        f"account {account_id}: open orders {_limit(answer.max_open_orders)}, "
        f"open notional {_limit(answer.max_open_notional)}, order notional {_limit(answer.max_order_notional)}, "
        f"order quantity {_limit(answer.max_order_quantity)}"
    )
    output.print_answer(answer, told, as_json)


@account.command()
@_account_argument
@options.config_option
@options.json_option
def show(account_id: int, as_json: bool) -> None:
    """Show an account's status, open orders, limits and balances.

    \b
    Example:
      smrx account show 7
    """
    with venue_client.connect() as client:
        state = client.account_state(account_id)
        found = client.balances(account_id)
    if as_json:
        output.print_json({"account": state, "balances": found})
        return
    click.echo(f"account {account_id}: {state.status}, open orders {state.open_orders}")
    rows = [
        ("open orders", "orders", _limit(state.max_open_orders)),
        ("open notional", "minimal units", _limit(state.max_open_notional)),
        ("order notional", "minimal units", _limit(state.max_order_notional)),
        ("order quantity", "lots", _limit(state.max_order_quantity)),
    ]
    output.print_table(("LIMIT", "COUNTED IN", "AT MOST"), rows, empty="")
    _print_balances(found)


def _limit(value: int) -> str:
    return str(value) if value else "unlimited"


@account.command()
@click.argument("account_id", metavar="[ACCOUNT]", type=click.IntRange(min=0), required=False)
@options.config_option
@options.json_option
def balances(account_id: int | None, as_json: bool) -> None:
    """Show the balances of one account, or of all.

    \b
    Example:
      smrx account balances 7
    """
    with venue_client.connect() as client:
        found = client.balances(account_id, all_accounts=account_id is None)
    if as_json:
        output.print_json(found)
        return
    _print_balances(found)


@account.command()
@_account_argument
@options.config_option
@options.json_option
def positions(account_id: int, as_json: bool) -> None:
    """Show what an account has in each instrument, and what its open orders may still buy and sell.

    Balances are the whole account's: instruments with the same asset share them. Worth is that of open orders at their
    limits, in the quote asset, without fees; a stop without a limit price counts as 0.

    \b
    Example:
      smrx account positions 7
    """
    with venue_client.connect() as client:
        found = client.positions(account_id)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ("SYMBOL", "BASE", "HELD", "QUOTE", "HELD", "BUY ORDERS", "BUYING", "WORTH", "SELL ORDERS", "SELLING", "WORTH"),
        [
            (
                *(row.symbol, row.base_total, row.base_held, row.quote_total, row.quote_held),
                *(row.buy_orders, row.buy_quantity, row.buy_notional),
                *(row.sell_orders, row.sell_quantity, row.sell_notional),
            )
            for row in found
        ],
        empty="no positions",
    )


def _print_balances(found: "Sequence[Balance]") -> None:
    rows = [(row.account, row.asset, row.available, row.held) for row in found]
    output.print_table(("ACCOUNT", "ASSET", "AVAILABLE", "HELD"), rows, empty="no balances")


@account.command("list")
@options.config_option
@options.json_option
def list_(as_json: bool) -> None:
    """List the accounts.

    \b
    Example:
      smrx account list
    """
    with venue_client.connect() as client:
        found = client.accounts()
    if as_json:
        output.print_json(found)
        return
    output.print_table(("ACCOUNT",), [(number,) for number in found], empty="no accounts")

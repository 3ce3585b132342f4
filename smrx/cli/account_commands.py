"""`smrx account`: accounts and their balances. Parses, calls the client, prints."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smrx.client.read_levels import Level
    from smrx.client.results import Balance, TransferResult

_account_argument = click.argument("account_id", metavar="ACCOUNT", type=click.IntRange(min=1))


@click.group()
def account() -> None:
    """Open, limit and suspend accounts, deposit and withdraw, show balances.

    \b
    Example:
      smrx account open 7
    """


def _account_verb(command: Callable[..., None]) -> Callable[..., None]:
    """Add the parameters of a command that takes an account and nothing else."""
    return _account_argument(options.cluster_option(options.json_option(command)))


@account.command("open")
@click.option("--firm", type=click.IntRange(min=1), help="The firm that the account belongs to, for good.")
@_account_verb
def open_(account_id: int, as_json: bool, firm: int | None) -> None:
    """Open an account. Credentials of its firm, if it has one, act for it.

    \b
    Example:
      smrx account open 7
      smrx account open 8 --firm 5
    """
    with venue_client.connect() as client:
        answer = client.open_account(account_id, firm=firm or 0)
    output.print_answer(answer, f"account {account_id} is open", as_json)


@account.command()
@_account_verb
def suspend(account_id: int, as_json: bool) -> None:
    """Suspend an account: it can cancel orders and nothing else. Its open orders stay open.

    \b
    Example:
      smrx account suspend 7
    """
    with venue_client.connect() as client:
        answer = client.suspend_account(account_id)
    output.print_answer(answer, f"account {account_id} is suspended", as_json)


@account.command()
@_account_verb
def resume(account_id: int, as_json: bool) -> None:
    """Resume a suspended account.

    \b
    Example:
      smrx account resume 7
    """
    with venue_client.connect() as client:
        answer = client.resume_account(account_id)
    output.print_answer(answer, f"account {account_id} is active", as_json)


def _new_transfer_id(ctx: click.Context, parameter: click.Parameter, value: int | None) -> int:
    # Two operators can get the same nanosecond only by chance; the exchange then refuses the second transfer.
    return time.time_ns() if value is None else value


def _transfer_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the parameters of deposit and withdraw."""
    for parameter in (
        options.json_option,
        options.cluster_option,
        click.option(
            "--transfer-id",
            type=click.IntRange(min=1),
            callback=_new_transfer_id,
            help="Id of the transfer. A repeat with the same id is refused and moves no money. Generated if not given.",
        ),
        click.argument("asset"),
        click.argument("amount"),
        _account_argument,
    ):
        command = parameter(command)
    return command


@account.command()
@_transfer_parameters
def deposit(account_id: int, amount: str, asset: str, transfer_id: int, as_json: bool) -> None:
    """Deposit AMOUNT of ASSET to an account.

    \b
    Example:
      smrx account deposit 7 1000000.00 USD
    """
    with venue_client.connect() as client:
        answer = client.deposit(account_id, asset, amount, transfer_id)
    _print_transfer(answer, asset, as_json)


@account.command()
@_transfer_parameters
def withdraw(account_id: int, amount: str, asset: str, transfer_id: int, as_json: bool) -> None:
    """Withdraw AMOUNT of ASSET from an account.

    \b
    Example:
      smrx account withdraw 7 250.00 USD
    """
    with venue_client.connect(account_id) as client:
        answer = client.withdraw(account_id, asset, amount, transfer_id)
    _print_transfer(answer, asset, as_json)


def _print_transfer(answer: "TransferResult", asset: str, as_json: bool) -> None:
    result = "was made before" if answer.already_done else f"is done, {answer.available} {asset} available"
    output.print_answer(answer, f"transfer {answer.transfer_id} {result}", as_json)


@account.command()
@_account_argument
@click.option("--open-orders", type=click.IntRange(min=0), help="Most open orders at a time.")
@click.option("--open-notional", metavar="AMOUNT", help="Greatest notional of all open orders in one quote asset.")
@click.option("--order-notional", metavar="AMOUNT", help="Greatest notional of one order, in its quote asset.")
@click.option("--order-quantity", metavar="QUANTITY", help="Greatest quantity of one order.")
@click.option("--asset", help="Amounts are decimals of this asset; without it they are minimal units.")
@click.option("--symbol", help="The quantity is a decimal of this instrument; without it it is in lots.")
@options.cluster_option
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
    """Set limits of an account. A limit that is not given does not change; 0 removes a limit.

    The exchange compares amounts in minimal units and quantities in lots. It applies the same number to every asset and
    instrument.

    \b
    Example:
      smrx account limits 7 --open-orders 100 --order-notional 250000.00 --asset USD
    """
    if open_orders is None and open_notional is None and order_notional is None and order_quantity is None:
        raise CliError(
            Exit.USAGE,
            "no limit is given; give --open-orders, --open-notional, --order-notional or --order-quantity",
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
    text = (
        f"account {account_id}: open orders {_limit(answer.max_open_orders)}, "
        f"open notional {_limit(answer.max_open_notional)}, order notional {_limit(answer.max_order_notional)}, "
        f"order quantity {_limit(answer.max_order_quantity)}"
    )
    output.print_answer(answer, text, as_json)


@account.command()
@_account_argument
@options.level_options
@options.config_option
@options.json_option
def show(account_id: int, level: "Level", as_json: bool) -> None:
    """Show the status, open orders, limits and balances of an account.

    \b
    Example:
      smrx account show 7
    """
    with venue_client.connect() as client:
        state = client.account_state(account_id, level=level)
        found = client.balances(account_id, level=level)
    if as_json:
        output.print_json({"account": state, "balances": found})
        return
    click.echo(f"account {account_id}: {state.status}, {output.count(state.open_orders, 'open order')}")
    rows = [
        ("open orders", "orders", _limit(state.max_open_orders)),
        ("open notional", "minimal units", _limit(state.max_open_notional)),
        ("order notional", "minimal units", _limit(state.max_order_notional)),
        ("order quantity", "lots", _limit(state.max_order_quantity)),
    ]
    output.print_table(("LIMIT", "UNIT", "MAXIMUM"), rows, empty="")
    _print_balances(found)


def _limit(value: int) -> str:
    return str(value) if value else "unlimited"


@account.command()
@click.argument("account_id", metavar="[ACCOUNT]", type=click.IntRange(min=0), required=False)
@options.level_options
@options.cluster_option
@options.json_option
def balances(account_id: int | None, level: "Level", as_json: bool) -> None:
    """Show the balances of one account, or of all accounts.

    \b
    Example:
      smrx account balances 7
    """
    with venue_client.connect() as client:
        found = client.balances(account_id, all_accounts=account_id is None, level=level)
    if as_json:
        output.print_json(found)
        return
    _print_balances(found)


@account.command()
@_account_argument
@options.level_options
@options.config_option
@options.json_option
def positions(account_id: int, level: "Level", as_json: bool) -> None:
    """Show the balances of an account by instrument, and what its open orders can still buy and sell.

    Instruments with the same asset show the same balance of the account. NOTIONAL is the value of the open orders at
    their limit prices, in the quote asset, without fees; a stop without a limit price counts as 0.

    \b
    Example:
      smrx account positions 7
    """
    with venue_client.connect() as client:
        found = client.positions(account_id, level=level)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        (
            *("SYMBOL", "BASE", "BASE HELD", "QUOTE", "QUOTE HELD"),
            *("BUY ORDERS", "BUY QTY", "BUY NOTIONAL", "SELL ORDERS", "SELL QTY", "SELL NOTIONAL"),
        ),
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
@options.level_options
@options.cluster_option
@options.json_option
def list_(level: "Level", as_json: bool) -> None:
    """List the accounts.

    \b
    Example:
      smrx account list
    """
    with venue_client.connect() as client:
        found = client.accounts(level=level)
    if as_json:
        output.print_json(found)
        return
    output.print_table(("ACCOUNT",), [(number,) for number in found], empty="no accounts")

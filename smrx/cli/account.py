"""`smrx account`: accounts and their money. Parses, calls the client, prints."""

import time

import click

from smrx.cli import connect, options, output


@click.group()
def account() -> None:
    """Open accounts, move money in and out, show balances.

    \b
    Example:
      smrx account open 7
    """


@account.command("open")
@click.argument("account_id", metavar="ACCOUNT", type=click.IntRange(min=1))
@options.config_option
@options.json_option
def open_(account_id: int, as_json: bool) -> None:
    """Open an account.

    \b
    Example:
      smrx account open 7
    """
    with connect.client() as client:
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
@click.argument("account_id", metavar="ACCOUNT", type=click.IntRange(min=1))
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
    with connect.client() as client:
        answer = client.deposit(account_id, asset, amount, transfer_id)
    done = "was made before" if answer.already_done else f"done, {answer.available} {asset} available"
    output.print_answer(answer, f"transfer {transfer_id} {done}", as_json)


@account.command()
@click.argument("account_id", metavar="ACCOUNT", type=click.IntRange(min=1))
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
    with connect.client() as client:
        answer = client.withdraw(account_id, asset, amount, transfer_id)
    done = "was made before" if answer.already_done else f"done, {answer.available} {asset} available"
    output.print_answer(answer, f"transfer {transfer_id} {done}", as_json)


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
    with connect.client() as client:
        found = client.balances(account_id, everyone=account_id is None)
    if as_json:
        output.print_json(found)
        return
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
    with connect.client() as client:
        found = client.accounts()
    if as_json:
        output.print_json(found)
        return
    output.print_table(("ACCOUNT",), [(number,) for number in found], empty="no accounts")

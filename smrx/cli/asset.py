"""`smrx asset`: what can be owned. Parses, calls the client, prints."""

import click

from smrx.cli import connect, options, output


@click.group()
def asset() -> None:
    """Add and list what can be owned.

    \b
    Example:
      smrx asset add USD --decimals 6
    """


@asset.command()
@click.argument("symbol")
@click.option(
    "--decimals", type=click.IntRange(0, 18), required=True, help="Digits behind the point of the minimal unit."
)
@options.config_option
@options.json_option
def add(symbol: str, decimals: int, as_json: bool) -> None:
    """Add an asset.

    \b
    Example:
      smrx asset add BTC --decimals 8
    """
    with connect.client() as client:
        answer = client.add_asset(symbol, decimals)
    output.print_answer(answer, f"asset {symbol} has id {answer.asset}", as_json)


@asset.command("list")
@options.config_option
@options.json_option
def list_(as_json: bool) -> None:
    """List the assets.

    \b
    Example:
      smrx asset list
    """
    with connect.client() as client:
        found = client.assets()
    if as_json:
        output.print_json(found)
        return
    rows = [(row.id, row.symbol, row.decimals) for row in found]
    output.print_table(("ID", "SYMBOL", "DECIMALS"), rows, empty="no assets")

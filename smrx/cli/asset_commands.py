"""`smrx asset`: the assets of the exchange. Parses, calls the client, prints."""

from typing import TYPE_CHECKING

import click

from smrx.cli import options, output, venue_client

if TYPE_CHECKING:
    from smrx.client.read_levels import Level


@click.group()
def asset() -> None:
    """Add and list assets.

    \b
    Example:
      smrx asset add USD --decimals 6
    """


@asset.command()
@click.argument("symbol")
@click.option("--decimals", type=click.IntRange(0, 18), required=True, help="Decimal places of the minimal unit.")
@click.option(
    "--max-supply", metavar="AMOUNT", help="Largest total of all balances; at most 2^62 - 1 units if not given."
)
@options.cluster_option
@options.json_option
def add(symbol: str, decimals: int, max_supply: str | None, as_json: bool) -> None:
    """Add an asset.

    SYMBOL has 1 to 16 characters of A-Z 0-9 - . / _

    \b
    Example:
      smrx asset add BTC --decimals 8 --max-supply 21000000
    """
    with venue_client.connect() as client:
        answer = client.add_asset(symbol, decimals, max_supply=max_supply)
    output.print_answer(answer, f"asset {symbol} has id {answer.asset}", as_json)


@asset.command("list")
@options.level_options
@options.cluster_option
@options.json_option
def list_(level: "Level", as_json: bool) -> None:
    """List the assets.

    \b
    Example:
      smrx asset list
    """
    with venue_client.connect() as client:
        found = client.assets(level=level)
    rows = [
        {
            "id": row.id,
            "symbol": row.symbol,
            "decimals": row.decimals,
            "supply": row.text(row.supply),
            "max_supply": row.text(row.supply_cap) if row.supply_cap else None,
        }
        for row in found
    ]
    if as_json:
        output.print_json(rows)
        return
    columns = ("ID", "SYMBOL", "DECIMALS", "SUPPLY", "MAX SUPPLY")
    output.print_table(columns, [output.cells(row) for row in rows], empty="no assets")

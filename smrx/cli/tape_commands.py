"""`smrx tape`: makes tapes. Parses, calls, prints; the work is in smrx/tape."""

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_market import DEFAULT_MARKET_ID


@click.group()
def tape() -> None:
    """Make tapes of order flow."""


@tape.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--commands", type=click.IntRange(min=1), default=100_000, show_default=True, help="Orders and cancels.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--market-id",
    type=click.IntRange(min=1),
    default=DEFAULT_MARKET_ID,
    show_default=True,
    help="Number of instrument and share; accounts are 100 times it, plus 1 and up.",
)
@options.json_option
def generate(out: str, commands: int, seed: int, market_id: int, as_json: bool) -> None:
    """Write a tape of AMZN-like order flow to OUT.

    The mix of orders, cancels and executions, sizes and prices follow a real day's statistics. The tape sets up its own
    assets, instrument and accounts, and can be replayed as often as you like.

    \b
    Example:
      smrx tape generate day.tape --commands 10000 --seed 1
      smrx replay day.tape --verify-only
    """
    from smrx.tape import generate as generator
    from smrx.tape import tape_file

    try:
        made = generator.generate(commands, seed, market_id)
        tape_file.write(out, made)
    except TapeError as error:
        raise CliError(Exit.USAGE, str(error)) from None
    described = {
        "tape": out,
        "symbol": made.symbol,
        "setup": len(made.setup),
        "commands": len(made.commands),
        "trades": made.trades,
        "seed": seed,
    }
    if as_json:
        output.print_json(described)
    else:
        click.echo(
            f"{out}: {len(made.commands)} commands on {made.symbol} that make {made.trades} trades, "
            f"after {len(made.setup)} to set up the market (seed {seed})"
        )

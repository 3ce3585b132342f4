"""`smrx tape`: generate tapes. Parses and prints; smrx/tape does the work."""

import click

from smrx.cli import options, output
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit
from smrx.tape.tape_error import TapeError
from smrx.tape.tape_market import DEFAULT_MARKET_ID


@click.group()
def tape() -> None:
    """Generate tapes of order flow."""


@tape.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option(
    "--commands", type=click.IntRange(min=1), default=100_000, show_default=True, help="Number of orders and cancels."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed; the same seed gives the same file."
)
@click.option(
    "--market-id",
    type=click.IntRange(min=1),
    default=DEFAULT_MARKET_ID,
    show_default=True,
    help="Base of the ids: the instrument has this id, accounts start at 100 times this number plus 1.",
)
@options.json_option
def generate(out: str, commands: int, seed: int, market_id: int, as_json: bool) -> None:
    """Write a tape of AMZN-like order flow to OUT.

    The mix of orders, cancels and executions, the sizes and the prices follow the statistics of a recorded day. The
    tape sets up its own assets, instrument and accounts, and can be replayed any number of times.

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
        "setup": len(made.setup.records),
        "commands": len(made.commands),
        "trades": made.trades,
        "seed": seed,
    }
    if as_json:
        output.print_json(described)
    else:
        click.echo(
            f"{out}: {len(made.setup.records)} commands that set up the market, then {len(made.commands)} on "
            f"{made.symbol} with {made.trades} trades (seed {seed})"
        )

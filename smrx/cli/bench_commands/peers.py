"""`smrx bench peers`: the engine beside other order books. Parses, calls, prints."""

import click

from smrx.cli import options, output
from smrx.cli.bench_commands.figures import (
    batch_option,
    compile_engine,
    mistakes,
    repeats_option,
    seed_option,
    tape_option,
)


@click.command("peers")
@tape_option
@click.option(
    "--commands",
    type=click.IntRange(1_000, 10_000_000),
    default=200_000,
    show_default=True,
    help="Commands of the tape.",
)
@batch_option
@seed_option
@repeats_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1, max=3600),
    default=10.0,
    show_default=True,
    help="Where a peer's run ends; it is judged by what it did.",
)
@click.option(
    "--liquibook",
    type=click.Path(exists=True, file_okay=False),
    help="A checkout of liquibook: a driver in C++ is built on it and runs too.",
)
@options.json_option
def command(
    tape: str,
    commands: int,
    batch: int,
    seed: int,
    repeats: int,
    seconds: float,
    liquibook: str | None,
    as_json: bool,
) -> None:
    """Measure the engine and other order books on one tape.

    pip install "smrx[peers]" brings the others. A speed is printed only for fills that are identical, one by one:
    maker, taker, price and lots. A ratio says how many times as fast this engine is, in tier A (match and trades only)
    and in tier B (everything on).

    \b
    Example:
      smrx bench peers --commands 200000 --json
    """
    from smrx.bench.peers import peer_comparison

    compile_engine()
    with mistakes():
        figures = peer_comparison.run(
            commands, tape=tape, seed=seed, batch=batch, repeats=repeats, limit_s=seconds, liquibook=liquibook
        )
    if as_json:
        output.print_json(figures)
        return
    columns = ("ORDER BOOK", "VERSION", "COMMANDS/S", "FILLS", "TIER A IS", "TIER B IS")
    measured = [row for row in figures["peers"] if row["commands_per_second"]]
    output.print_table(
        columns,
        [
            (
                row["name"],
                row["version"],
                f"{row['commands_per_second']:,}",
                "identical",
                f"{row['ratio']}x",
                f"{row['ratio_tier_b']}x",
            )
            for row in measured
        ],
        empty="no peers",
    )
    for row in figures["peers"]:
        if row not in measured:
            click.echo(f"{row['name']}: {'other fills: ' if row['fills_identical'] is False else ''}{row['absent']}")
    click.echo(f"{figures['commands']:,} commands, {figures['fills']:,} fills")

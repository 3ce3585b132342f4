"""`smrx bench engine`: the engine alone, on one core. Parses, calls, prints."""

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import (
    batch_option,
    compile_engine,
    mistakes,
    print_figures,
    repeats_option,
    seed_option,
)


@click.command("engine")
@click.option(
    "--tier",
    type=click.Choice(["A", "B", "C"]),
    default="B",
    show_default=True,
    help="A: match and trades only. B: hash, ledger, events. C: B, journaled and synced.",
)
@click.option(
    "--tape",
    type=click.Choice(["mixed", "cancel-heavy", "deep-book", "sweep-heavy", "real"]),
    default="mixed",
    show_default=True,
    help="The order flow; `real` is read from FILES.",
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--commands",
    type=click.IntRange(1_000, 100_000_000),
    default=2_000_000,
    show_default=True,
    help="Commands to apply.",
)
@batch_option
@seed_option
@repeats_option
@options.json_option
def command(
    tier: str, tape: str, files: tuple[str, ...], commands: int, batch: int, seed: int, repeats: int, as_json: bool
) -> None:
    """Measure the engine alone, on one core.

    FILES, with --tape real: a LOBSTER message file and, if there is one, its orderbook file; or a tape of `smrx tape
    generate`. Prints the state hash of its run: the same commands give the same hash everywhere.

    \b
    Example:
      smrx bench engine --json
      smrx bench engine --tier A --tape deep-book
      smrx bench engine --batch 1
    """
    from smrx.bench import engine_bench

    compile_engine()
    with mistakes():
        figures = engine_bench.run(commands, tape=tape, seed=seed, batch=batch, tier=tier, files=files, repeats=repeats)
    print_figures(figures, as_json)

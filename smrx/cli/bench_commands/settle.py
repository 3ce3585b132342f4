"""`smrx bench settle`: settlement behind a feed. Parses, calls, prints."""

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import compile_engine, print_figures, progress


@click.command("settle")
@click.option(
    "--events",
    type=click.IntRange(10_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Events to catch up with.",
)
@click.option(
    "--sink", type=click.Choice(["csv", "lmdb"]), default="csv", show_default=True, help="Where trades are stored."
)
@click.option(
    "--rate",
    type=click.IntRange(1_000, 10_000_000),
    default=100_000,
    show_default=True,
    help="Events a second of the live feed whose lag is measured.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=1, max=3600), default=5.0, show_default=True, help="Of the live feed."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the market.")
@options.json_option
def command(events: int, sink: str, rate: int, seconds: float, seed: int, as_json: bool) -> None:
    """Measure settlement: events verified into a sink a second on one core, and the lag behind a live feed.

    \b
    Example:
      smrx bench settle --sink csv --json
    """
    from smrx.bench import settle_bench

    compile_engine()
    with progress() as show:
        figures = settle_bench.run(events=events, sink=sink, rate=rate, seconds=seconds, seed=seed, progress=show)
    print_figures(figures, as_json)

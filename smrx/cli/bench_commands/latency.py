"""`smrx bench latency`: orders that arrive on their own schedule. Parses, calls, prints."""

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import compile_engine, mistakes, print_figures, seed_option, write


@click.command("latency")
@click.option(
    "--rate",
    type=click.IntRange(1_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands that arrive in a second.",
)
@click.option(
    "--commands",
    type=click.IntRange(10_000, 100_000_000),
    default=3_000_000,
    show_default=True,
    help="Commands to measure.",
)
@click.option(
    "--tier",
    type=click.Choice(["A", "B"]),
    default="B",
    show_default=True,
    help="A: match and trades only. B: hash, ledger, events.",
)
@seed_option
@click.option("--svg", "svg_file", type=click.Path(dir_okay=False), help="Draw the percentiles into this file.")
@options.json_option
def command(rate: int, commands: int, tier: str, seed: int, svg_file: str | None, as_json: bool) -> None:
    """Measure how long orders wait for their result when they arrive on their own schedule.

    From an order's scheduled arrival to its trades, in one process, without sockets and consensus; an engine that
    stands still makes every order wait that came meanwhile.

    \b
    Example:
      smrx bench latency --rate 1000000 --svg latency.svg
    """
    from smrx.bench import latency_bench

    compile_engine()
    with mistakes():
        figures = latency_bench.run(commands, rate, seed=seed, tier=tier)
    if svg_file is not None:
        write(svg_file, latency_bench.picture(figures))
    if not as_json:
        del figures["curve"]
    print_figures(figures, as_json)

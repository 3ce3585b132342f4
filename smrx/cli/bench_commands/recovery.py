"""`smrx bench recovery`: restarts and snapshots. Parses, calls, prints."""

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import compile_engine, dir_option, print_figures, progress


@click.command("recovery")
@click.option(
    "--commands",
    type=click.IntRange(1000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands in the journal after the snapshot.",
)
@click.option(
    "--accounts", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True, help="In the snapshot."
)
@click.option(
    "--orders", type=click.IntRange(1, 50_000_000), default=1_000_000, show_default=True, help="In the snapshot."
)
@click.option(
    "--largest",
    type=click.IntRange(0, 65_536),
    default=2048,
    show_default=True,
    help="Measure the pause for processes up to so many MiB.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=10.0,
    show_default=True,
    help="Measure orders without snapshots for so long, and as long with them; 0 does not.",
)
@dir_option
@options.json_option
def command(
    commands: int, accounts: int, orders: int, largest: int, seconds: float, directory: str | None, as_json: bool
) -> None:
    """Measure restarts and snapshots: until a restarted node serves, and what a snapshot costs a node that serves.

    The last figures are the latency of single orders to three nodes on disk that hold the accounts and orders, without
    snapshots and while every node takes one after the other, with the default election timeouts.

    \b
    Example:
      smrx bench recovery --json
    """
    from smrx.bench import recovery_bench

    compile_engine()
    with progress() as show:
        figures = recovery_bench.run(
            commands=commands,
            accounts=accounts,
            orders=orders,
            largest_mib=largest,
            seconds=seconds,
            directory=directory,
            progress=show,
        )
    print_figures(figures, as_json)

"""`smrx bench cluster`: a whole cluster on this machine. Parses, calls, prints."""

from typing import Literal

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import compile_engine, durability_option, print_figures, progress


@click.command("cluster")
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Processes on loopback.")
@durability_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=10.0,
    show_default=True,
    help="Half for throughput, half for latency.",
)
@options.json_option
def command(nodes: int, durability: Literal["memory", "disk"], seconds: float, as_json: bool) -> None:
    """Measure a whole cluster on this machine: acknowledged commands a second, and latency of single orders.

    \b
    Example:
      smrx bench cluster --nodes 3 --durability memory --seconds 10 --json
    """
    from smrx.bench import cluster_bench

    compile_engine()
    with progress() as show:
        figures = cluster_bench.run(nodes=nodes, durability=durability, seconds=seconds, progress=show)
    print_figures(figures, as_json)

"""`smrx bench failover`: a leader that is killed, or hands over. Parses, calls, prints."""

from typing import Literal

import click

from smrx.cli import options
from smrx.cli.bench_commands.figures import compile_engine, durability_option, print_figures, progress
from smrx.cli.exits import Exit
from smrx.cli.failures import Failure


@click.command("failover")
@click.option(
    "--kills", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Times the leader is killed."
)
@click.option(
    "--transfers",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Times the leader lets another node lead.",
)
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Processes on loopback.")
@durability_option
@options.json_option
def command(kills: int, transfers: int, nodes: int, durability: Literal["memory", "disk"], as_json: bool) -> None:
    """Measure how long no order is acknowledged when the leader is killed, or hands over.

    One client sends one order after the other. Each kill is a SIGKILL of the leader; the time runs until an order that
    was sent after it is acknowledged. The node is back in full before the next. Ends with an error if an acknowledged
    order is lost or doubled.

    \b
    Example:
      smrx bench failover --kills 100 --json
      smrx bench failover --kills 0 --transfers 50
    """
    from smrx.bench import failover_bench

    if kills + transfers == 0:
        raise Failure(Exit.USAGE, "expected --kills or --transfers of 1 or more, found neither")
    compile_engine()
    with progress() as show:
        figures = failover_bench.run(
            kills=kills, transfers=transfers, nodes=nodes, durability=durability, progress=show
        )
    print_figures(figures, as_json)

"""The benchmarks of nodes and of what follows them: `smrx bench cluster`, `failover`, `history`, `journal` and others.

Parses, runs smrx/bench and prints. bench_commands.py adds the commands to the group `smrx bench`.
"""

from typing import Final, Literal

import click

from smrx.cli import options, progress
from smrx.cli.bench_shared import dir_option, durability_option, print_figures, seed_option
from smrx.cli.cli_errors import CliError
from smrx.cli.exit_codes import Exit


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Node processes on loopback.")
@durability_option
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=10.0,
    show_default=True,
    help="Half for throughput, half for latency.",
)
@options.json_option
def cluster(nodes: int, durability: Literal["memory", "disk"], seconds: float, as_json: bool) -> None:
    """Measure a cluster on this machine: acknowledged commands per second, and the latency of single orders.

    \b
    Example:
      smrx bench cluster --nodes 3 --durability memory --seconds 10 --json
    """
    from smrx.bench import cluster_bench

    progress.compile_engine()
    with progress.phase_bars() as show:
        figures = cluster_bench.run(nodes=nodes, durability=durability, seconds=seconds, progress=show)
    print_figures(figures, as_json)


@click.command()
@click.option(
    "--kills", type=click.IntRange(0, 10_000), default=20, show_default=True, help="How often to kill the leader."
)
@click.option(
    "--transfers",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="How often to transfer leadership.",
)
@click.option("--nodes", type=click.IntRange(3, 9), default=3, show_default=True, help="Node processes on loopback.")
@durability_option
@options.json_option
def failover(kills: int, transfers: int, nodes: int, durability: Literal["memory", "disk"], as_json: bool) -> None:
    """Measure how long orders are not acknowledged when the leader is killed or transfers its leadership.

    One client sends one order after the other. Each kill is a SIGKILL of the leader; the time ends when an order sent
    after the kill is acknowledged. The killed node has caught up before the next kill. Exits with an error if an
    acknowledged order is lost or applied twice.

    \b
    Example:
      smrx bench failover --kills 100 --json
      smrx bench failover --kills 0 --transfers 50
    """
    from smrx.bench import failover_bench

    if kills + transfers == 0:
        raise CliError(Exit.USAGE, "--kills and --transfers are both 0; at least one must be 1 or more")
    progress.compile_engine()
    with progress.phase_bars() as show:
        figures = failover_bench.run(
            kills=kills, transfers=transfers, nodes=nodes, durability=durability, progress=show
        )
    print_figures(figures, as_json)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.4, max=3600),
    default=10.0,
    show_default=True,
    help="Total time for all turn sizes.",
)
@dir_option
@options.json_option
def journal(seconds: float, directory: str | None, as_json: bool) -> None:
    """Measure the journal: commands per second appended and synced, by bytes per turn.

    \b
    Example:
      smrx bench journal --json
    """
    from smrx.bench import journal_bench

    with progress.phase_bars() as show:
        figures = journal_bench.run(seconds=seconds, directory=directory, progress=show)
    if not as_json:
        turns = figures.pop("turns")
        figures = {f"{turn.pop('turn_bytes') >> 10} KiB per turn": turn for turn in turns} | figures
    print_figures(figures, as_json)


@click.command()
@click.option(
    "--commands",
    type=click.IntRange(1000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Commands in the journal after the snapshot.",
)
@click.option(
    "--accounts",
    type=click.IntRange(1, 10_000_000),
    default=100_000,
    show_default=True,
    help="Number of them in the snapshot.",
)
@click.option(
    "--orders",
    type=click.IntRange(1, 50_000_000),
    default=1_000_000,
    show_default=True,
    help="Number of them in the snapshot.",
)
@click.option(
    "--largest",
    type=click.IntRange(0, 65_536),
    default=2048,
    show_default=True,
    help="Measure the pause for processes of up to this many MiB.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=10.0,
    show_default=True,
    help="Measure orders this long without and this long with snapshots; 0 skips both.",
)
@dir_option
@options.json_option
def recovery(
    commands: int, accounts: int, orders: int, largest: int, seconds: float, directory: str | None, as_json: bool
) -> None:
    """Measure the time until a restarted node serves, and what a snapshot costs a node that serves.

    The last figures are the latency of single orders with three nodes on disk that hold the accounts and orders, first
    without snapshots, then while each node takes one snapshot after the other.

    \b
    Example:
      smrx bench recovery --json
    """
    from smrx.bench import recovery_bench

    progress.compile_engine()
    with progress.phase_bars() as show:
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


@click.command()
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
    help="Events per second of the live feed whose lag is measured.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=5.0,
    show_default=True,
    help="Duration of the live feed.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the market.")
@options.json_option
def settle(events: int, sink: str, rate: int, seconds: float, seed: int, as_json: bool) -> None:
    """Measure settlement: events per second verified and stored on one core, and the lag behind a live feed.

    \b
    Example:
      smrx bench settle --sink csv --json
    """
    from smrx.bench import settle_bench

    progress.compile_engine()
    with progress.phase_bars() as show:
        figures = settle_bench.run(events=events, sink=sink, rate=rate, seconds=seconds, seed=seed, progress=show)
    print_figures(figures, as_json)


@click.command()
@click.option(
    "--updates",
    type=click.IntRange(1_000, 100_000_000),
    default=1_000_000,
    show_default=True,
    help="Updates of orders to store before the reads.",
)
@click.option("--reads", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Pages to read.")
@click.option(
    "--rate",
    type=click.IntRange(0, 1_000_000),
    default=20_000,
    show_default=True,
    help="Updates per second while pages are read.",
)
@seed_option
@dir_option
@options.json_option
def history(updates: int, reads: int, rate: int, seed: int, directory: str | None, as_json: bool) -> None:
    """Measure order history: updates stored per second, and the time to read an account's latest 50 orders.

    \b
    Example:
      smrx bench history --updates 10000000 --json
    """
    from smrx.bench import history_bench

    progress.compile_engine()
    with progress.phase_bars() as show:
        figures = history_bench.run(updates, reads, rate, seed, directory, show)
    print_figures(figures, as_json)


COMMANDS: Final = (cluster, failover, history, journal, recovery, settle)

"""`smrx bench load`: throughput and latency of a cluster under a load of a chosen shape.

Parses, runs smrx/bench/load_bench.py and prints. bench_commands.py adds the command to the group `smrx bench`.
"""

from typing import Any, Final, Literal

import click

from smrx.cli import options, output, progress
from smrx.cli.bench_shared import durability_option, errors_as_usage, print_figures

#: Figures that only --json prints: they are long.
_LONG: Final = ("series", "distribution_us", "curve")


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Node processes on loopback.")
@durability_option
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "zmq", "ring", "native", "sdk", "sdk-blocking"]),
    default="tcp",
    show_default=True,
    help="tcp, zmq, ring: order entry of the leader. native: through a gateway. sdk: smrx.AsyncClient. sdk-blocking: "
    "smrx.Client.",
)
@click.option(
    "--connections", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Connections, or clients."
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 65_536),
    default=16,
    show_default=True,
    help="Frames of each connection that are sent and not answered.",
)
@click.option(
    "--frame-commands", type=click.IntRange(1, 4_096), default=1, show_default=True, help="Commands in each frame."
)
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(min=1),
    multiple=True,
    help="Commands due a second, whatever the cluster does; latency counts from then. Several: one run for each. "
    "Without it a connection sends when an answer arrives.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.2, max=86_400), default=5.0, show_default=True, help="Measured time."
)
@click.option(
    "--warm-up", type=click.FloatRange(min=0, max=3_600), default=1.0, show_default=True, help="Seconds before that."
)
@click.option(
    "--mix",
    type=click.Choice(["steady", "cancels", "takers"]),
    default="steady",
    show_default=True,
    help="steady: 60% adds, 30% cancels, 10% takers. cancels: adds and their cancels. takers: every other order fills.",
)
@click.option(
    "--tape",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    help="Send this tape once instead of a mix: a file of `smrx tape generate`, or a LOBSTER message file and "
    "optionally its orderbook file.",
)
@click.option(
    "--fault",
    type=click.Choice(["leader", "follower", "snapshot"]),
    help="In the middle of the measured time: kill the leader, stop a follower for a quarter of the time, or let all "
    "nodes take a snapshot.",
)
@click.option(
    "--budget", is_flag=True, help="Also report the time of each node's loop in each stage, in nanoseconds an order."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    help="Write charts to this file, .png or .svg: latency by percentile, throughput over time, latency against load.",
)
@click.option(
    "--spin-us",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="timing.spin_us of the nodes: how long a node looks for messages before it sleeps.",
)
@click.option(
    "--flame",
    type=click.Path(dir_okay=False),
    help="Write a flame graph of the leader's Python code in the measured time to this file, .svg; needs py-spy, and "
    "often root.",
)
@options.json_option
def load(
    nodes: int,
    durability: Literal["memory", "disk"],
    protocol: Literal["tcp", "zmq", "ring", "native", "sdk", "sdk-blocking"],
    connections: int,
    in_flight: int,
    frame_commands: int,
    rates: tuple[float, ...],
    seconds: float,
    warm_up: float,
    mix: str,
    tape: tuple[str, ...],
    fault: Literal["leader", "follower", "snapshot"] | None,
    budget: bool,
    plot: str | None,
    spin_us: int,
    flame: str | None,
    as_json: bool,
) -> None:
    """Measure a cluster on this machine under a load: acknowledged orders a second, and their latency.

    Every connection is real, and every answer is checked. The figures say whether the generator kept up.

    \b
    Example:
      smrx bench load --connections 100 --in-flight 16
      smrx bench load --connections 1000 --in-flight 1 --json
      smrx bench load --rate 50000 --rate 100000 --plot load.png
    """
    from smrx.bench import load_bench, load_plot
    from smrx.bench.load_generator import Shape

    progress.compile_engine()
    shape = Shape(in_flight=in_flight, frame_commands=frame_commands, seconds=seconds, warm_up_s=warm_up)
    with progress.phase_bars() as show, errors_as_usage():
        figures = load_bench.run(
            shape,
            connections=connections,
            protocol=protocol,
            nodes=nodes,
            durability=durability,
            rates=rates,
            mix=mix,
            tape=tape,
            fault=fault,
            budget=budget,
            flame=flame,
            spin_us=spin_us,
            progress=show,
        )
    if plot is not None:
        load_plot.write(plot, figures)
    if as_json:
        output.print_json(figures)
        return
    print_figures({name: value for name, value in figures.items() if name not in _LONG}, as_json=False)
    _print_curve(figures.get("curve", []))


def _print_curve(curve: list[dict[str, Any]]) -> None:
    if curve:
        rows = [
            (
                f"{point['offered_per_second']:,}",
                f"{point['acknowledged_per_second']:,}",
                *(f"{point['latency_us'][name]:,}" for name in ("p50", "p99", "p999")),
            )
            for point in curve
        ]
        output.print_table(("OFFERED/S", "ACKNOWLEDGED/S", "P50 US", "P99 US", "P99.9 US"), rows, empty="no loads")

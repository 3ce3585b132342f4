"""Draw the figures of `smrx bench load`: latency by percentile, throughput over time, latency against offered load.

Needs matplotlib (`pip install "smrx[plot]"`), imported when a picture is drawn. The format follows from the name of the
file. Called by the command line.
"""

from collections.abc import Mapping
from typing import Any, Final

from smrx.bench.bench_error import BenchError

_SIZE_INCHES: Final = (15, 5)
_COLOURS: Final = {"p50": "#0072b2", "p99": "#d55e00", "p999": "#009e73"}
_LABELS: Final = {"p50": "50%", "p99": "99%", "p999": "99.9%"}


def write(path: str, figures: Mapping[str, Any]) -> None:
    """Write the charts of load_bench.run() to a file such as load.png or load.svg; raises BenchError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchError('--plot needs matplotlib; install it with pip install "smrx[plot]"') from None
    picture: Any = Figure(figsize=_SIZE_INCHES, layout="constrained")
    panels = picture.subplots(1, 3)
    _percentiles(panels[0], figures)
    _throughput(panels[1], figures)
    _against_load(panels[2], figures)
    conditions = figures["conditions"]
    picture.suptitle(
        f"{conditions['protocol']}, {figures['connections']} connections, {figures['in_flight']} under way each, "
        f"{figures['frame_commands']} commands a frame, {conditions['nodes']} nodes, {conditions['durability']}, "
        f"{conditions['loop']} loop; {conditions['processor']}, {conditions['cpu_count']} processors",
        fontsize="medium",
    )
    try:
        picture.savefig(path)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: cannot write the charts: {error}") from None


def _percentiles(panel: Any, figures: Mapping[str, Any]) -> None:
    # 1 of so many orders takes longer: 10 is the percentile 90, 1,000 is 99.9.
    points = [(1 / max(1 - share, 1e-6), value) for share, value in figures["distribution_us"]]
    panel.loglog(*zip(*points, strict=True), color=_COLOURS["p50"])
    panel.set(title="Latency by percentile", xlabel="one order in so many takes longer", ylabel="microseconds")
    panel.grid(True, which="both", alpha=0.3)


def _throughput(panel: Any, figures: Mapping[str, Any]) -> None:
    series = figures["series"]
    # The last bin is not a whole one.
    answered = series["acknowledged"][:-1]
    times = [place * series["seconds"] for place in range(len(answered))]
    panel.plot(times, [count / series["seconds"] for count in answered], color=_COLOURS["p50"])
    panel.set(title="Acknowledged over time", xlabel="seconds, warm-up included", ylabel="orders a second")
    panel.set_ylim(bottom=0)
    longest = panel.twinx()
    longest.plot(times, series["longest_us"][:-1], color=_COLOURS["p99"], alpha=0.5)
    longest.set_ylabel("longest latency, microseconds", color=_COLOURS["p99"])
    panel.grid(True, alpha=0.3)


def _against_load(panel: Any, figures: Mapping[str, Any]) -> None:
    loads = figures.get("curve") or [figures]
    offered = [load["offered_per_second"] for load in loads]
    for name, colour in _COLOURS.items():
        values = [load["latency_us"][name] for load in loads]
        panel.plot(offered, values, marker="o", color=colour, label=_LABELS[name])
    panel.set_yscale("log")
    panel.set(title="Latency against offered load", xlabel="orders a second", ylabel="microseconds")
    panel.legend(title="of the orders within")
    panel.grid(True, which="both", alpha=0.3)

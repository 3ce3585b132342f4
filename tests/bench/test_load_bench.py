"""`smrx bench load`, run small on real processes: its figures, a killed leader, the SDK, a tape."""

from typing import Any

import pytest

from smrx import cli
from smrx.bench import load_bench, load_plot
from smrx.bench.bench_error import BenchError
from smrx.bench.load_generator import Shape
from smrx.cli.exit_codes import Exit
from smrx.rings import ring_kernels
from smrx.tape import generate, tape_file

SHORT = Shape(in_flight=4, seconds=0.5, warm_up_s=0.2)


def check_latencies(latency: dict[str, Any]) -> None:
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]


def test_figures_of_a_closed_loop_have_the_promised_keys() -> None:
    figures = load_bench.run(SHORT, connections=5, nodes=1, durability="disk", budget=True)
    assert (figures["connections"], figures["in_flight"], figures["frame_commands"]) == (5, 4, 1)
    assert figures["acknowledged_per_second"] == figures["offered_per_second"] > 0
    check_latencies(figures["latency_us"])
    assert figures["rejected"] == figures["unsent"] == 0
    assert set(figures["cpu_seconds"]) == {"1", "generator"}
    assert sum(figures["series"]["acknowledged"]) >= figures["acknowledged"] > 0
    assert (figures["conditions"]["durability"], figures["conditions"]["loop"]) == ("disk", "closed")
    assert int(figures["state_hash"], 16) > 0
    assert sum(figures["budget_ns_an_order"]["1"].values()) > 0


def test_open_loop_survives_the_loss_of_the_leader() -> None:
    """Every order is acknowledged, and the wait of those that were due meanwhile is in the latencies."""
    shape = SHORT._replace(seconds=2.0, in_flight=64)
    figures = load_bench.run(shape, connections=4, rates=[200], fault="leader")
    assert figures["reconnects"] >= 1
    assert figures["rejected"] == 0
    # At least an election.
    assert figures["latency_us"]["max"] > 100_000


@pytest.mark.parametrize("protocol", ["sdk", "sdk-blocking"])
def test_load_through_the_sdk(protocol: load_bench.ProtocolName) -> None:
    alone = protocol == "sdk-blocking"
    shape = SHORT._replace(in_flight=1 if alone else 4)
    figures = load_bench.run(shape, connections=1 if alone else 2, nodes=1, protocol=protocol)
    assert figures["acknowledged"] > 0
    check_latencies(figures["latency_us"])


def test_load_through_a_gateway() -> None:
    figures = load_bench.run(SHORT, connections=3, nodes=1, protocol="native")
    assert figures["acknowledged"] > 0
    assert figures["rejected"] == figures["reconnects"] == 0
    assert set(figures["cpu_seconds"]) == {"1", "gateway", "generator"}


@pytest.mark.skipif(not ring_kernels.is_available(), reason="rings need compiled code")
def test_load_through_rings_in_shared_memory() -> None:
    """Every answer is checked: none is lost, doubled or of another order, also when the leader dies."""
    figures = load_bench.run(SHORT._replace(in_flight=64, seconds=2.0), connections=3, protocol="ring", fault="leader")
    assert figures["acknowledged"] > 0
    assert figures["rejected"] == 0
    assert figures["reconnects"] >= 1


def test_rings_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most 16 connections"):
        load_bench.run(SHORT, connections=17, protocol="ring")


def test_tape_is_sent_once(tmp_path: Any) -> None:
    path = tmp_path / "tape"
    tape = generate.generate(2_000, 3)
    tape_file.write(path, tape)
    figures = load_bench.run(SHORT._replace(seconds=60, warm_up_s=0.0), connections=3, nodes=1, tape=[str(path)])
    assert figures["acknowledged"] == 2_000


def test_charts_are_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    latency = {"p50": 100.0, "p99": 300.0, "p999": 900.0}
    points = [{"offered_per_second": rate, "latency_us": latency} for rate in (100, 200)]
    figures = points[0] | {
        "curve": points,
        "connections": 1,
        "in_flight": 1,
        "frame_commands": 1,
        "series": {"seconds": 0.1, "acknowledged": [10, 12, 1], "longest_us": [300, 900, 100]},
        "distribution_us": [(0.0, 50.0), (0.5, 100.0), (1.0, 900.0)],
        "conditions": dict.fromkeys(("protocol", "nodes", "durability", "loop", "processor", "cpu_count"), "?"),
    }
    for name, start in (("load.png", b"\x89PNG"), ("load.svg", b"<?xml")):
        load_plot.write(str(tmp_path / name), figures)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(BenchError, match="cannot write the charts"):
        load_plot.write(str(tmp_path / "load.nothing"), figures)


def test_impossible_loads_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "load", "--protocol", "sdk", "--rate", "10"]) == Exit.USAGE
    assert "has no --rate" in capsys.readouterr().err
    assert cli.run(["bench", "load", "--protocol", "sdk-blocking"]) == Exit.USAGE
    assert "one connection" in capsys.readouterr().err

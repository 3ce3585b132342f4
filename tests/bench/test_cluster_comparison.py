"""The comparison with other replicated systems: rows and ratios, what is skipped and why, and one real peer."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from smrx.bench import load_bench
from smrx.bench.peers import (
    aeron_cluster,
    cluster_comparison,
    driver_build,
    exchange_core,
    hashicorp_raft,
    stock_pysyncobj,
)
from smrx.bench.peers.peer_calls import PeerUnavailable
from smrx.bench.peers.peer_members import Members, parse_load
from smrx.bench.peers.peer_tape import make_peer_tape
from smrx.bench.peers.replicated_peer import Answered, LoadShape, ReplicatedPeer, Timing
from smrx.cli.bench_peers_commands import _CLUSTER_PEERS, peers

SHORT = Timing(0.2, 0.5)
#: Set to build drivers in a test; a driver that is in the cache is tested without it.
BUILD_VARIABLE = "SMRX_TEST_BUILD_PEERS"


def our_figures(shape: Any, *, protocol: str, **_options: Any) -> dict[str, Any]:
    """Return what bench load returns; the gateway is the slower one."""
    p50 = {"tcp": 400.0, "native": 500.0}[protocol]
    return {
        "acknowledged": 1_000,
        "latency_us": {"p50": p50, "p99": 900.0},
        "cpu_seconds": {"1": 0.1, "2": 0.05, "3": 0.05, "generator": 0.02},
    }


def measured_peer(*_arguments: Any) -> Answered:
    return Answered("1.2", "its own client", 2_000, 0.5, 100.0, 300.0, None, 0.1)


def missing_peer(*_arguments: Any) -> Answered:
    raise PeerUnavailable("go is not installed; its driver needs it")


@pytest.fixture
def two_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_bench, "run", our_figures)
    found = {
        "fast": ReplicatedPeer("echo", ("memory",), measured_peer),
        "missing": ReplicatedPeer("echo", ("memory", "disk"), missing_peer),
    }
    monkeypatch.setattr(cluster_comparison, "PEERS", found)


@pytest.mark.usefixtures("two_peers")
def test_rows_and_ratios() -> None:
    said: list[str] = []
    figures = cluster_comparison.run(
        ("fast", "missing"),
        shapes=[LoadShape(2, 4)],
        durabilities=("memory", "disk"),
        protocols=("native", "tcp"),
        timing=SHORT,
        say=said.append,
    )
    rows = figures["clusters"]
    assert [(row["name"], row["durability"], row["absent"] is None) for row in rows] == [
        ("smrx", "memory", True),
        ("smrx", "memory", True),
        ("fast", "memory", True),
        ("missing", "memory", False),
        ("smrx", "disk", True),
        ("smrx", "disk", True),
        ("fast", "disk", False),
        ("missing", "disk", False),
    ]
    fast = rows[2]
    # Beside smrx with the shorter p50: 2,000 requests a second and 400 us.
    assert (fast["ratio_throughput"], fast["ratio_p50"]) == (0.5, 4.0)
    assert (fast["acknowledged_per_second"], fast["connections"], fast["in_flight"]) == (4_000, 2, 4)
    assert fast["cpu_ns_an_order"] == {"nodes": None, "load": 50_000}
    assert rows[0]["cpu_ns_an_order"] == {"nodes": 200_000, "load": 20_000}
    assert rows[6]["absent"] == "it has no durability disk"
    assert "missing is skipped: go is not installed; its driver needs it" in said


@pytest.mark.usefixtures("two_peers")
def test_table_lists_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smrx.cli.bench_peers_commands._CLUSTER_PEERS", ("fast", "missing"))
    result = CliRunner().invoke(peers, ["--only", "clusters", "--load", "2x4", "--load-seconds", "0.5"])
    assert result.exit_code == 0, result.output
    assert "fast 1.2" in result.output
    assert "missing, memory: go is not installed" in result.output


def test_command_knows_all_peers() -> None:
    assert tuple(cluster_comparison.PEERS) == _CLUSTER_PEERS


def test_load_shapes() -> None:
    assert LoadShape.parse("100x16") == LoadShape(100, 16)
    assert str(LoadShape(1, 1_000)) == "1 x 1,000"
    for text in ("", "x", "1", "1x", "0x1", "1x0", "1x2x3", "-1x1", "10001x1"):
        with pytest.raises(ValueError, match="expected connections x requests under way"):
            LoadShape.parse(text)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (b"", "printed no result"),
        (b"warning\n", "printed no result"),
        (b'{"acknowledged": 1}', "printed no result"),
        (b'{"acknowledged": 0, "seconds": 1, "p50_us": 0, "p99_us": 0, "cpu_s": 0}', "no request was answered"),
    ],
)
def test_output_without_a_result_is_refused(printed: bytes, reason: str) -> None:
    with pytest.raises(PeerUnavailable, match=reason):
        parse_load(printed)


def test_last_line_is_the_result() -> None:
    line = b'{"acknowledged": 7, "seconds": 2.0, "p50_us": 3.5, "p99_us": 9, "cpu_s": 0.1}'
    found = parse_load(b"a warning of a library\n" + line + b"\n")
    assert (found.acknowledged, found.seconds, found.p50_us, found.p99_us, found.cpu_s) == (7, 2.0, 3.5, 9.0, 0.1)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PeerUnavailable, match="go is not installed"):
        hashicorp_raft.run(LoadShape(1, 1), "memory", SHORT, print)
    with pytest.raises(PeerUnavailable, match="java is not installed"):
        aeron_cluster.run(LoadShape(1, 1), "memory", SHORT, print)


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)


def test_build_that_fails_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "go", "echo 'module lookup disabled' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SMRX_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(PeerUnavailable, match="go ended with exit code 1: module lookup disabled"):
        driver_build.go_program("etcd", lambda _: None)
    assert not is_built("etcd")
    assert list((tmp_path / "cache" / "drivers").iterdir()) == []


def test_driver_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "go", f"echo built >>{tmp_path}/log; echo program >driver")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SMRX_CACHE_DIR", str(tmp_path / "cache"))
    said: list[str] = []
    first, second = (driver_build.go_program("etcd", said.append) for _ in range(2))
    assert first == second
    assert first.read_text() == "program\n"
    assert (tmp_path / "log").read_text() == "built\n"
    assert len(said) == 1


def test_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "go", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SMRX_CACHE_DIR", str(tmp_path))
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers").chmod(0o777)
    with pytest.raises(PeerUnavailable, match="others can write it"):
        driver_build.go_program("etcd", lambda _: None)


def test_member_that_ends_is_reported() -> None:
    with Members(in_memory=False) as members:
        members.start([sys.executable, "-c", "raise SystemExit('the port is in use')"], is_read=True)
        with pytest.raises(PeerUnavailable, match="member 0 ended with exit code 1: the port is in use"):
            members.first_line(30.0)


def test_pysyncobj_answers() -> None:
    found = stock_pysyncobj.run(LoadShape(2, 2), "memory", SHORT, print)
    assert found.acknowledged > 0
    assert 0 < found.p50_us <= found.p99_us


def is_built(name: str) -> bool:
    """Return whether a driver is in the cache."""
    try:
        return driver_build.built_folder(name).is_dir()
    except PeerUnavailable:
        return False


def need_driver(name: str, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if not is_built(name) and not os.environ.get(BUILD_VARIABLE):
        pytest.skip(
            f"the driver of {name} is not built; {BUILD_VARIABLE}=1 builds it, which downloads and takes minutes"
        )


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_hashicorp_raft_answers(durability: Any) -> None:
    need_driver(hashicorp_raft.DRIVER, "go")
    found = hashicorp_raft.run(LoadShape(3, 4), durability, SHORT, print)
    assert found.acknowledged > 0
    assert 0 < found.p50_us <= found.p99_us
    assert found.nodes_cpu_s is not None


def test_exchange_core_gives_the_same_fills() -> None:
    need_driver(exchange_core.DRIVER, "java")
    given = make_peer_tape("mixed", 1_500, 3)
    run = exchange_core.play(given.calls, given.filling, print)
    assert (run.done, run.version) == (len(given.calls) - given.filling, exchange_core.VERSION)
    assert len(run.fills) > 100

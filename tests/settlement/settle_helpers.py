"""Helpers for tests of `smrx settle`: stub nodes, the real command, and its results."""

import csv
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from smrx.cli import run
from smrx.config import Config, NodeConfig, dump
from smrx.follower.runner import Runner
from smrx.wire.codes import EventKind
from tests.feed.stub import TIMEOUT_S, StubNode

Events = NDArray[np.void]

#: The stubs whose script has begun and not ended.
_sending: set[StubNode] = set()
_turn: Any = Runner.turn


def write_config(directory: Path, nodes: list[StubNode], **settings: Any) -> Path:
    """Write the configuration of a cluster whose members are the stubs."""
    config = Config(
        nodes=tuple(
            NodeConfig(
                id=node.node,
                port=10 * node.node,
                events_port=node.port,
                admin_port=node.admin_port,
            )
            for node in nodes
        ),
        **settings,
    )
    path = directory / "cluster.toml"
    path.write_text(dump(config))
    return path


@contextmanager
def publishing(node: StubNode, script: Callable[[], None], repeat: Callable[[], None] | None = None) -> Iterator[None]:
    """Run a script on the stub's feed as soon as there is a subscriber, then `repeat` until the test is done."""
    done = threading.Event()

    def work() -> None:
        node.wait_subscribed()
        _sending.add(node)
        try:
            script()
        finally:
            _sending.discard(node)
        while repeat is not None and not done.wait(0.05):
            repeat()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def publish_all(node: StubNode, events: Events, *, losing: tuple[int, ...] = (), size: int = 100) -> None:
    """Publish events in log entries of about `size` events; those numbered in `losing` get lost."""
    start, number = 0, 0
    while start < len(events):
        end = end_of_command(events, start + size)
        # Frames that are shorter than the entry end inside commands, as those of a node's long entries do.
        node.publish(events[start:end], lose=number in losing, frame_events=size * 3 // 5)
        start, number = end, number + 1


def end_of_command(events: Events, count: int) -> int:
    """Return how many events there are up to the end of the command of event `count`."""
    if count >= len(events):
        return len(events)
    commands = events["command_sequence"]
    return int(np.searchsorted(commands, commands[count - 1], side="right"))


def settle(tmp_path: Path, nodes: list[StubNode], *options: str, **settings: Any) -> int:
    """Run `smrx settle run`; return its exit code. With `--idle` it does not end while a stub still sends."""
    config = write_config(tmp_path, nodes, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "turn", _turn_not_idle)
        return run(["settle", "run", "--config", str(config), "--out", str(tmp_path), *options])


def _turn_not_idle(runner: Any, *arguments: Any, **options: Any) -> int:
    """Turn. A stub that still sends counts as an event: on a loaded machine it may pause for longer than `--idle`."""
    is_sending = bool(_sending)
    posted: int = _turn(runner, *arguments, **options)
    if is_sending:
        runner._last_event_at = time.monotonic()
    return posted


def rows(tmp_path: Path) -> list[list[str]]:
    columns = ("match_id", "event_sequence", "price_ticks", "quantity_lots", "taker_order_id", "maker_order_id")
    with (tmp_path / "settled_trades.csv").open(newline="") as file:
        return [[row[column] for column in columns] for row in csv.DictReader(file)]


def whole_commands(events: Events) -> int:
    """Return a number of events, about half of them, after which a command ends."""
    return int(np.flatnonzero(events["kind"] == EventKind.NEW)[500])


def expected_rows(events: Events) -> list[list[str]]:
    """Return the trades of a stream as match id, event, price, quantity, taker's and maker's order."""
    trades = events[events["kind"] == EventKind.TRADE]
    columns = ("match_id", "sequence", "price_ticks", "quantity_lots", "order_id", "counter_order_id")
    return [[str(value) for value in row] for row in zip(*(trades[c].tolist() for c in columns), strict=True)]


def summary(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err

"""Measure the engine and other order books on one tape; a speed is reported only for correct fills.

The expected fills are those of heap_book.py. A peer whose fills differ, or that is not available, gets a row with the
reason and no figures. Converting the input and reading the fills is not measured for any peer. A slow peer is stopped
after some seconds and measured by the commands that it completed. Called by the command line.
"""

import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import machine_conditions
from smrx.bench.engine_bench import new_engine
from smrx.bench.peers import exchange_core, liquibook_source
from smrx.bench.peers.driver_build import Say
from smrx.bench.peers.heap_book import Peer as Reference
from smrx.bench.peers.peer_calls import FILL, Calls, Fills, PeerUnavailable
from smrx.bench.peers.peer_process import Run, play, play_in_process
from smrx.bench.peers.peer_tape import PeerTape, make_peer_tape
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT

#: Name of a peer -> module of its adapter.
PEERS: Final = {
    "dict and heap": f"{__package__}.heap_book",
    "sorted list": f"{__package__}.sorted_list_book",
    "bourse": f"{__package__}.bourse",
    "liquibook (Python)": f"{__package__}.liquibook",
    "pyorderbook": f"{__package__}.pyorderbook",
    "lightmatchingengine": f"{__package__}.lightmatchingengine",
    "order-matching": f"{__package__}.order_matching",
    "matching-engine": f"{__package__}.matching_engine",
}
#: Name of a peer with a driver of its own -> what runs the calls with it, the first of them to fill the book.
DRIVERS: Final[Mapping[str, Callable[[Calls, int, Say], Run]]] = {"exchange-core (Java)": exchange_core.play}
#: Packages that were tried and cannot be compared, with the reason.
UNUSABLE: Final = {
    "limit-order-book": "version 2.0.0 does not return its trades",
    "nanobook": "version 0.19.2 loops forever in submit_limit after about 400 calls of the mixed tape",
    "orderbook": "version 0.1.2, the newest, was written for Python 2 and cannot be imported by Python 3",
}


def play_engine(given: PeerTape, tier: str, batch: int) -> Run:
    """Run the tape on an engine of smrx in calls of `batch` commands."""
    engine = new_engine(tier)
    engine.apply(given.setup.records, 1, given.setup.details)
    first = engine.sequence + 1
    # With large batches, selecting the trades is measured, too. With one command a call it would cost more than the
    # call, so all events are kept.
    select = _trades if batch > 1 else _all
    trades = [_trades(engine.apply(given.commands[: given.filling], 1).events)]
    gc.collect()
    begin = time.perf_counter()
    found = [
        select(engine.apply(given.commands[at : at + batch], 1).events)
        for at in range(given.filling, len(given.commands), batch)
    ]
    seconds = time.perf_counter() - begin
    trades += found if batch > 1 else [_trades(events) for events in found]
    numbers = np.zeros(first + len(given.commands), np.int64)
    numbers[first:][~given.calls["cancel"]] = given.calls["number"][~given.calls["cancel"]]
    return Run(
        "this version",
        len(given.commands) - given.filling,
        seconds,
        _fills(np.concatenate(trades).view(EVENT).reshape(-1), numbers),
    )


def _trades(events: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the trades among events, as words."""
    words: NDArray[np.uint64] = events.view(np.uint64).reshape(-1, EVENT.itemsize // 8)
    is_trade = events["kind"] == EventKind.TRADE
    # In tier A nearly all batches have only trades; returning them costs no copy.
    return words if is_trade.all() else words[is_trade]


def _all(events: NDArray[Any]) -> NDArray[Any]:
    return events


def _fills(trades: NDArray[Any], numbers: NDArray[np.int64]) -> Fills:
    fills = np.zeros(len(trades), FILL)
    fills["maker"] = numbers[trades["counter_order_id"].astype(np.int64)]
    fills["taker"] = numbers[trades["order_id"].astype(np.int64)]
    fills["price"] = trades["price_ticks"]
    fills["lots"] = trades["quantity_lots"]
    return fills


def expected_until(given: PeerTape, fills: Fills, done: int) -> Fills:
    """Return the expected fills of the calls that fill the book and of the first `done` measured calls."""
    calls = given.calls[: given.filling + done]
    newest = int(calls["number"][~calls["cancel"]].max(initial=0))
    return fills[: int(np.searchsorted(fills["taker"], newest, side="right"))]


def run(
    commands: int = 200_000,
    tape: str = "mixed",
    seed: int = 1,
    batch: int = 1_000,
    repeats: int = 3,
    limit_s: float = 10.0,
    liquibook: str | None = None,
    peers: dict[str, str] = PEERS,
    drivers: Mapping[str, Callable[[Calls, int, Say], Run]] = DRIVERS,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measure all peers; the fastest of `repeats` runs counts, and the run of a peer stops after `limit_s` seconds."""
    given = make_peer_tape(tape, commands, seed)
    expected = play(Reference(given.calls), len(given.calls), given.filling, float("inf")).fills
    runs: dict[str, Callable[[], Run]] = {
        "smrx, tier A": partial(play_engine, given, "A", batch),
        "smrx, tier B": partial(play_engine, given, "B", batch),
        "smrx, tier B, one command a call": partial(play_engine, given, "B", 1),
    }
    for name, module in peers.items():
        runs[name] = partial(play_in_process, module, given.calls, given.filling, limit_s)
    for name, driver in drivers.items():
        runs[name] = partial(driver, given.calls, given.filling, say)
    if liquibook is not None:
        runs["liquibook (C++)"] = partial(liquibook_source.play, Path(liquibook), given.calls, given.filling)
    rows = [_measure(name, given, expected, run_once, repeats, limit_s) for name, run_once in runs.items()]
    rows += [_row_without_speed(name, "", None, reason) for name, reason in UNUSABLE.items()]
    _add_ratios(rows)
    return {
        "tape": tape,
        "commands": len(given.calls) - given.filling,
        "fills": len(expected),
        "peers": rows,
        "conditions": machine_conditions.machine()
        | {
            "tape": f"{given.description}; limit orders and cancels only, without refused commands",
            "seed": seed,
            "batch": batch,
            "repeats": repeats,
            "seconds_limit": limit_s,
            "cores": 1,
            "ratio": "speed of smrx in tier A to that of the peer; ratio_tier_b: the same in tier B",
        },
    }


def _best(run_once: Callable[[], Run], repeats: int, limit_s: float) -> Run:
    runs = [run_once()]
    while len(runs) < repeats and sum(one.seconds for one in runs) < limit_s:
        runs.append(run_once())
    return min(runs, key=lambda one: one.seconds / max(1, one.done))


def _measure(
    name: str, given: PeerTape, expected: Fills, run_once: Callable[[], Run], repeats: int, limit_s: float
) -> dict[str, Any]:
    """Return a peer's row; without figures if it cannot be measured."""
    try:
        return _row(name, given, expected, _best(run_once, repeats, limit_s))
    except PeerUnavailable as error:
        return _row_without_speed(name, "", None, str(error))


def _row(name: str, given: PeerTape, expected: Fills, one: Run) -> dict[str, Any]:
    wanted = expected_until(given, expected, one.done)
    if not np.array_equal(one.fills, wanted):
        return _row_without_speed(name, one.version, False, _difference(one.fills, wanted))
    return {
        "name": name,
        "version": one.version,
        "commands": one.done,
        "seconds": round(one.seconds, 6),
        "commands_per_second": round(one.done / one.seconds),
        "fills_identical": True,
        "ratio": None,
        "ratio_tier_b": None,
        "absent": None,
    }


def _row_without_speed(name: str, version: str, identical: bool | None, reason: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "commands": 0,
        "seconds": None,
        "commands_per_second": None,
        "fills_identical": identical,
        "ratio": None,
        "ratio_tier_b": None,
        "absent": reason,
    }


def _difference(found: Fills, wanted: Fills) -> str:
    """Describe the first wrong fill."""
    shared = min(len(found), len(wanted))
    wrong = np.flatnonzero(found[:shared] != wanted[:shared])
    at = int(wrong[0]) if len(wrong) else shared
    wrong_fill = found[at].tolist() if at < len(found) else "none"
    right_fill = wanted[at].tolist() if at < len(wanted) else "none"
    return f"wrong fills: expected {right_fill} (maker, taker, price, lots) as fill {at + 1}, found {wrong_fill}"


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    speeds = {row["name"]: row["commands_per_second"] for row in rows}
    for row in rows:
        for key, ours in (("ratio", "smrx, tier A"), ("ratio_tier_b", "smrx, tier B")):
            if row["commands_per_second"] and speeds[ours]:
                row[key] = round(speeds[ours] / row["commands_per_second"], 2)

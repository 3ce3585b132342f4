"""Our engine and other order books on one tape, in one run: no speed without the same fills.

The expected fills are those of the plain reference (heap.py). A peer whose fills differ, or that is not there, gets a
line that says so and no figure. Converting the input comes before the clock, reading the fills out after it, for every
peer alike. A slow peer is stopped after some seconds and judged by the part that it did. Called by the command line.
"""

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from smrx.bench import machine_conditions
from smrx.bench.engine_bench import new_engine
from smrx.bench.peers import liquibook_source
from smrx.bench.peers.calls import FILL, Absent, Fills
from smrx.bench.peers.heap import Peer as Reference
from smrx.bench.peers.peer_process import Run, apart, play
from smrx.bench.peers.script import Script, script
from smrx.wire.codes import EventKind
from smrx.wire.records import EVENT

#: What a peer is called, and the module of its adapter.
PEERS: Final = {
    "dict and heap": f"{__package__}.heap",
    "sorted list": f"{__package__}.sorted_list",
    "bourse": f"{__package__}.bourse",
    "liquibook (Python)": f"{__package__}.liquibook",
    "pyorderbook": f"{__package__}.pyorderbook",
    "lightmatchingengine": f"{__package__}.lightmatchingengine",
    "order-matching": f"{__package__}.order_matching",
    "matching-engine": f"{__package__}.matching_engine",
}
#: Packages that were looked at and cannot be compared, listed so that nobody looks in vain.
UNUSABLE: Final = {
    "limit-order-book": "version 2.0.0 has no way to ask for its trades",
    "nanobook": "version 0.19.2 spins in its own submit_limit without end, some 400 calls into the mixed tape",
    "orderbook": "version 0.1.2, the newest, was written for Python 2 and cannot be imported by Python 3",
}


def play_engine(given: Script, tier: str, batch: int) -> Run:
    """The same with our engine, which takes its calls in batches."""
    engine = new_engine(tier)
    engine.apply(given.setup, 1)
    first = engine.sequence + 1
    # Choosing the trades is a part of a large call; of a small one, all events are kept, which costs less.
    kept = _trades if batch > 1 else _all
    trades = [_trades(engine.apply(given.commands[: given.filling], 1).events)]
    gc.collect()
    begin = time.perf_counter()
    found = [
        kept(engine.apply(given.commands[at : at + batch], 1).events)
        for at in range(given.filling, len(given.commands), batch)
    ]
    seconds = time.perf_counter() - begin
    trades += found if batch > 1 else [_trades(events) for events in found]
    numbers = np.zeros(first + len(given.commands), np.int64)
    numbers[first:][~given.calls["cancel"]] = given.calls["number"][~given.calls["cancel"]]
    return Run(
        "this one",
        len(given.commands) - given.filling,
        seconds,
        _fills(np.concatenate(trades).view(EVENT).reshape(-1), numbers),
    )


def _trades(events: NDArray[Any]) -> NDArray[np.uint64]:
    """The trades among events, as words: what a caller who wants trades keeps. It is measured with the engine."""
    words: NDArray[np.uint64] = events.view(np.uint64).reshape(-1, EVENT.itemsize // 8)
    wanted = events["kind"] == EventKind.TRADE
    # In tier A there is hardly anything else: then there is nothing to choose.
    return words if wanted.all() else words[wanted]


def _all(events: NDArray[Any]) -> NDArray[Any]:
    return events


def _fills(trades: NDArray[Any], numbers: NDArray[np.int64]) -> Fills:
    fills = np.zeros(len(trades), FILL)
    fills["maker"] = numbers[trades["counter_order_id"].astype(np.int64)]
    fills["taker"] = numbers[trades["order_id"].astype(np.int64)]
    fills["price"] = trades["price_ticks"]
    fills["lots"] = trades["quantity_lots"]
    return fills


def expected_until(given: Script, fills: Fills, done: int) -> Fills:
    """The part of the expected fills that so many measured calls cause."""
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
) -> dict[str, Any]:
    """Measure all peers; the fastest of `repeats` runs counts, and a run of a peer ends after `limit_s` seconds."""
    given = script(tape, commands, seed)
    expected = play(Reference(given.calls), len(given.calls), given.filling, float("inf")).fills
    ways: dict[str, Callable[[], Run]] = {
        "smrx, tier A": partial(play_engine, given, "A", batch),
        "smrx, tier B": partial(play_engine, given, "B", batch),
        "smrx, tier B, one command a call": partial(play_engine, given, "B", 1),
    }
    for name, module in peers.items():
        ways[name] = partial(apart, module, given.calls, given.filling, limit_s)
    if liquibook is not None:
        ways["liquibook (C++)"] = partial(liquibook_source.play, Path(liquibook), given.calls, given.filling)
    rows = [_measured(name, given, expected, again, repeats, limit_s) for name, again in ways.items()]
    rows += [_without(name, "", None, reason) for name, reason in UNUSABLE.items()]
    _add_ratios(rows)
    return {
        "tape": tape,
        "commands": len(given.calls) - given.filling,
        "fills": len(expected),
        "peers": rows,
        "conditions": machine_conditions.machine()
        | {
            "tape": f"{given.description}; what was refused left out, limit orders and cancels only",
            "seed": seed,
            "batch": batch,
            "repeats": repeats,
            "seconds_limit": limit_s,
            "cores": 1,
            "ratio": "smrx in tier A over the peer; ratio_tier_b: smrx in tier B over the peer",
        },
    }


def _best(again: Callable[[], Run], repeats: int, limit_s: float) -> Run:
    runs = [again()]
    while len(runs) < repeats and sum(one.seconds for one in runs) < limit_s:
        runs.append(again())
    return min(runs, key=lambda one: one.seconds / max(1, one.done))


def _measured(
    name: str, given: Script, expected: Fills, again: Callable[[], Run], repeats: int, limit_s: float
) -> dict[str, Any]:
    """A peer's row; without figures if it cannot be measured."""
    try:
        return _row(name, given, expected, _best(again, repeats, limit_s))
    except Absent as error:
        return _without(name, "", None, str(error))


def _row(name: str, given: Script, expected: Fills, one: Run) -> dict[str, Any]:
    wanted = expected_until(given, expected, one.done)
    if not np.array_equal(one.fills, wanted):
        return _without(name, one.version, False, _difference(one.fills, wanted))
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


def _without(name: str, version: str, identical: bool | None, reason: str) -> dict[str, Any]:
    """A row without a speed."""
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
    """The first fill that is not what it should be, in one sentence."""
    shared = min(len(found), len(wanted))
    wrong = np.flatnonzero(found[:shared] != wanted[:shared])
    at = int(wrong[0]) if len(wrong) else shared
    this = found[at].tolist() if at < len(found) else "none"
    that = wanted[at].tolist() if at < len(wanted) else "none"
    return f"fill {at + 1} (maker, taker, price, lots): expected {that}, found {this}; no speed for other fills"


def _add_ratios(rows: list[dict[str, Any]]) -> None:
    speeds = {row["name"]: row["commands_per_second"] for row in rows}
    for row in rows:
        for key, ours in (("ratio", "smrx, tier A"), ("ratio_tier_b", "smrx, tier B")):
            if row["commands_per_second"] and speeds[ours]:
                row[key] = round(speeds[ours] / row["commands_per_second"], 2)

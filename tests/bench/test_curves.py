"""Cost curves and their picture, small: each curve measures what it says, and the picture can be read."""

import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

import numpy as np
import pytest

from smrx.bench import memory_bench, scale_bench, svg, tapes
from smrx.engine import Engine
from smrx.wire.codes import Side

SVG = "{http://www.w3.org/2000/svg}"
#: An order with its own price, a tenth of an account with two balances, two transfers and a session, and what doubling
#: keeps free: 420 to 930 bytes, as measured.
MOST_PER_ORDER = 1_000
MOST_OF_EMPTY = 1 << 20
#: What the interpreter may move by itself meanwhile.
SLACK_BYTES = 32 << 20


@pytest.mark.parametrize("curve", scale_bench.CURVES, ids=lambda curve: curve.name)
def test_a_curve_is_measured_at_every_size(curve: scale_bench.Curve) -> None:
    figures = scale_bench.run([100, 200], repeats=1, curves=[curve])
    (found,) = figures["curves"]
    assert (found["name"], found["unit"], found["absent"]) == (curve.name, curve.unit, None)
    assert [point["size"] for point in found["points"]] == [100, 200]
    assert all(point["ns"] > 0 for point in found["points"])
    assert found["growth"] > 0


def test_a_whole_exchange_is_in_one_engine_and_sound() -> None:
    """As a million orders are those of 100,000 accounts on 1,000 instruments, these are of 400 on 4."""
    bench = scale_bench.whole(4_000)
    inspect = bench.engine.inspect
    is_open = inspect.orders()
    assert len(is_open) == len(np.unique(is_open["price_ticks"])) == 4_000
    assert len(np.unique(is_open["account"])) == 400
    assert np.unique(is_open["instrument"]).tolist() == [1, 2, 3, 4]
    assert [len(inspect.depth(number, 4_000)[0]) for number in (1, 2, 3, 4)] == [1_000] * 4
    assert inspect.counts()["accounts"] == 401
    assert bench.engine.check_invariants() == []


def test_an_exchange_that_is_not_whole_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    make = scale_bench.Bench.orders

    def one_price(bench: scale_bench.Bench, count: int, prices: object, **more: object) -> object:
        return make(bench, count, 1_000, **more)

    monkeypatch.setattr(scale_bench.Bench, "orders", one_price)
    with pytest.raises(scale_bench.Unsupported, match=r"'levels': 1000.*in one engine, found .*'levels': 1[,}]"):
        scale_bench.whole(1_000)
    figures = scale_bench.run(
        [100], repeats=1, curves=[curve for curve in scale_bench.CURVES if curve.name == "whole exchange"]
    )
    assert figures["curves"][0]["absent"].startswith("this engine does not do it: expected")
    assert figures["memory"] == []
    figures["curves"] = scale_bench.run([100], repeats=1, curves=scale_bench.CURVES[:1])["curves"]
    assert scale_bench.picture(figures).count("<svg") == 1


def memory_follows_use(rows: list[dict[str, Any]]) -> bool:
    """Whether an empty engine is small, and all that each order brings with it takes no more the more there are."""
    empty, *filled = rows
    per_order = [(row["table_bytes"] - empty["table_bytes"]) / row["orders"] for row in filled]
    return bool(empty["table_bytes"] < MOST_OF_EMPTY and max(per_order) < MOST_PER_ORDER)


def test_memory_follows_what_is_used() -> None:
    rows = scale_bench.memory([1_000, 4_000, 16_000])
    assert [row["orders"] for row in rows] == [row["prices"] for row in rows] == [0, 1_000, 4_000, 16_000]
    assert [row["accounts"] for row in rows] == [1, 101, 401, 1_601]
    assert [row["instruments"] for row in rows] == [0, 1, 4, 16]
    assert [row["table_bytes"] for row in rows] == sorted(row["table_bytes"] for row in rows)
    assert memory_follows_use(rows)
    assert all(row["resident_bytes"] < row["table_bytes"] + SLACK_BYTES for row in rows)
    assert rows[0]["table_bytes_per_order"] is None
    assert rows[-1]["table_bytes_per_order"] == round(rows[-1]["table_bytes"] / 16_000)


def test_memory_taken_for_a_million_orders_from_the_start_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_bench, "Engine", partial(Engine, orders=1_000_000))
    assert not memory_follows_use(scale_bench.memory([1_000]))


def test_memory_that_grows_faster_than_what_is_in_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    count = memory_bench.table_bytes

    def squared(engine: Engine) -> int:
        orders = engine.inspect.counts()["orders"]
        return count(engine) + orders * orders

    monkeypatch.setattr(scale_bench, "table_bytes", squared)
    assert not memory_follows_use(scale_bench.memory([1_000, 4_000]))


def test_a_command_that_is_refused_is_no_figure() -> None:
    """As when a curve's orders would not rest: what is refused costs little, and would look fast."""
    bench = scale_bench.Bench()
    with pytest.raises(scale_bench.Unsupported, match="refused"):
        bench.send(bench.numbered(bench.orders(10, 0)))


def test_there_may_be_more_accounts_than_the_venues_session_has_for_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapes, "VENUE", 50)
    assert scale_bench.accounts(100) > 0


def test_a_sweep_that_does_not_meet_its_makers_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    make = scale_bench.Bench.orders

    def one_sided(bench: scale_bench.Bench, count: int, prices: object, **more: object) -> object:
        return make(bench, count, prices, **more | {"side": Side.BUY})

    monkeypatch.setattr(scale_bench.Bench, "orders", one_sided)
    with pytest.raises(scale_bench.Unsupported, match="expected 100 makers to be met"):
        scale_bench.deep_sweep(100)


@pytest.mark.parametrize("sizes", [[], [50]])
def test_sizes_that_measure_nothing_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="expected sizes of 100 or more"):
        scale_bench.run(sizes)


def test_the_picture_has_every_line_with_its_name() -> None:
    figures = scale_bench.run([100, 200], repeats=1, curves=scale_bench.CURVES[:3])
    figures["memory"][1]["resident_bytes"] = 0  # as where the system moved nothing: it has no logarithm
    figures["memory"][2]["resident_bytes"] = 1 << 20
    root = ElementTree.fromstring(scale_bench.picture(figures))
    costs, taken = root.findall(f"{SVG}g")
    assert len(list(costs.iter(f"{SVG}polyline"))) == 3
    tables, resident = taken.iter(f"{SVG}polyline")
    assert (len(tables.attrib["points"].split()), len(resident.attrib["points"].split())) == (2, 1)
    assert taken.attrib["transform"] == f"translate(0 {svg.HEIGHT})"
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for curve in scale_bench.CURVES[:3]:
        assert f"{curve.name} (per {curve.unit})" in texts
    assert "tables of the engine" in texts


def test_points_stand_where_their_values_are() -> None:
    text = svg.chart("a < b", svg.Axis("x"), svg.Axis("y"), [svg.Series("one", [(1, 10), (10, 100), (100, 1000)])])
    root = ElementTree.fromstring(text)
    (line,) = root.findall(f"{SVG}polyline")
    points = [tuple(float(value) for value in point.split(",")) for point in line.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x1
    assert y0 > y1
    assert "a &lt; b" in text


@pytest.mark.parametrize("points", [[], [(1, 0)], [(-1, 2)]])
def test_what_has_no_logarithm_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="all of them positive"):
        svg.chart("", svg.Axis(""), svg.Axis(""), [svg.Series("", points)])

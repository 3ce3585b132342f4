"""The scale benchmark, run small: its curves, its memory measurement and its charts."""

import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any

import numpy as np
import pytest

from smrx.bench import memory_bench, scale_bench, svg, tapes
from smrx.engine import Engine
from smrx.wire.codes import Side

SVG = "{http://www.w3.org/2000/svg}"
#: An order with its own price, a tenth of an account with two balances, two transfers and a session with 256 answers of
#: 64 bytes, and the free half of doubled tables: 1,180 to 2,440 bytes as measured, 1,640 of them the answers.
MAX_BYTES_PER_ORDER = 2_600
MAX_BYTES_EMPTY = 1 << 21
#: Resident memory of the interpreter itself that may come and go.
SLACK_BYTES = 32 << 20


@pytest.mark.parametrize("curve", scale_bench.CURVES, ids=lambda curve: curve.name)
def test_curve_has_a_point_for_every_size(curve: scale_bench.Curve) -> None:
    figures = scale_bench.run([100, 200], repeats=1, curves=[curve])
    (found,) = figures["curves"]
    assert (found["name"], found["unit"], found["absent"]) == (curve.name, curve.unit, None)
    assert [point["size"] for point in found["points"]] == [100, 200]
    assert all(point["ns"] > 0 for point in found["points"])
    assert found["growth"] > 0


def test_whole_exchange_has_orders_accounts_and_instruments_in_proportion() -> None:
    """A million orders belong to 100,000 accounts and are on 1,000 instruments; these are of 400 accounts on 4."""
    bench = scale_bench.whole_exchange_engine(4_000)
    inspect = bench.engine.inspect
    is_open = inspect.orders()
    assert len(is_open) == len(np.unique(is_open["price_ticks"])) == 4_000
    assert len(np.unique(is_open["account"])) == 400
    assert np.unique(is_open["instrument"]).tolist() == [1, 2, 3, 4]
    assert [len(inspect.depth(number, 4_000)[0]) for number in (1, 2, 3, 4)] == [1_000] * 4
    assert inspect.counts()["accounts"] == 401
    assert bench.engine.check_invariants() == []


def test_incomplete_exchange_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    make = scale_bench.LoadedEngine.orders

    def one_price(bench: scale_bench.LoadedEngine, count: int, prices: object, **more: object) -> object:
        return make(bench, count, 1_000, **more)

    monkeypatch.setattr(scale_bench.LoadedEngine, "orders", one_price)
    with pytest.raises(scale_bench.Unsupported, match=r"the engine holds .*'levels': 1[,}].*expected .*'levels': 1000"):
        scale_bench.whole_exchange_engine(1_000)
    figures = scale_bench.run(
        [100], repeats=1, curves=[curve for curve in scale_bench.CURVES if curve.name == "whole exchange"]
    )
    assert figures["curves"][0]["absent"].startswith("not supported by this engine: the engine holds")
    assert figures["memory"] == []
    figures["curves"] = scale_bench.run([100], repeats=1, curves=scale_bench.CURVES[:1])["curves"]
    assert scale_bench.picture(figures).count("<svg") == 1


def memory_follows_use(rows: list[dict[str, Any]]) -> bool:
    """Return whether an empty engine is small and the bytes per order are bounded."""
    empty, *filled = rows
    per_order = [(row["table_bytes"] - empty["table_bytes"]) / row["orders"] for row in filled]
    return bool(empty["table_bytes"] < MAX_BYTES_EMPTY and max(per_order) < MAX_BYTES_PER_ORDER)


def test_memory_is_proportional_to_orders() -> None:
    rows = scale_bench.memory([1_000, 4_000, 16_000])
    assert [row["orders"] for row in rows] == [row["prices"] for row in rows] == [0, 1_000, 4_000, 16_000]
    assert [row["accounts"] for row in rows] == [1, 101, 401, 1_601]
    assert [row["instruments"] for row in rows] == [0, 1, 4, 16]
    assert [row["table_bytes"] for row in rows] == sorted(row["table_bytes"] for row in rows)
    assert memory_follows_use(rows)
    assert all(row["resident_bytes"] < row["table_bytes"] + SLACK_BYTES for row in rows)
    assert rows[0]["table_bytes_per_order"] is None
    assert rows[-1]["table_bytes_per_order"] == round(rows[-1]["table_bytes"] / 16_000)


def test_large_preallocation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_bench, "Engine", partial(Engine, orders=1_000_000))
    assert not memory_follows_use(scale_bench.memory([1_000]))


def test_memory_quadratic_in_orders_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    count = memory_bench.table_bytes

    def squared(engine: Engine) -> int:
        orders = engine.inspect.counts()["orders"]
        return count(engine) + orders * orders

    monkeypatch.setattr(scale_bench, "table_bytes", squared)
    assert not memory_follows_use(scale_bench.memory([1_000, 4_000]))


def test_refused_command_is_not_measured() -> None:
    """Refusing a command is cheaper than executing it, so it would give too good a figure."""
    bench = scale_bench.LoadedEngine()
    with pytest.raises(scale_bench.Unsupported, match="refused"):
        bench.send(bench.numbered(bench.orders(10, 0)))


def test_more_accounts_than_the_number_of_the_venues_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapes, "VENUE", 50)
    assert scale_bench.accounts(100) > 0


def test_sweep_without_fills_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    make = scale_bench.LoadedEngine.orders

    def one_sided(bench: scale_bench.LoadedEngine, count: int, prices: object, **more: object) -> object:
        return make(bench, count, prices, **more | {"side": Side.BUY})

    monkeypatch.setattr(scale_bench.LoadedEngine, "orders", one_sided)
    with pytest.raises(scale_bench.Unsupported, match="did not fill 100 makers"):
        scale_bench.deep_sweep(100)


@pytest.mark.parametrize("sizes", [[], [50]])
def test_invalid_sizes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="expected sizes of 100 or more"):
        scale_bench.run(sizes)


def test_picture_has_a_labelled_line_for_every_curve() -> None:
    figures = scale_bench.run([100, 200], repeats=1, curves=scale_bench.CURVES[:3])
    figures["memory"][1]["resident_bytes"] = 0  # No resident memory was added: 0 has no logarithm.
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


def test_chart_places_points_on_logarithmic_scales() -> None:
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
def test_chart_refuses_values_without_logarithm(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="all of them positive"):
        svg.chart("", svg.Axis(""), svg.Axis(""), [svg.Series("", points)])

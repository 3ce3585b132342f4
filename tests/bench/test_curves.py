"""Cost curves and their picture, small: each curve measures what it says, and the picture can be read."""

import xml.etree.ElementTree as ElementTree

import pytest

from smrx.bench import scale, svg, tapes
from smrx.engine.codes import Side

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("curve", scale.CURVES, ids=lambda curve: curve.name)
def test_a_curve_is_measured_or_says_what_the_engine_refuses(curve: scale.Curve) -> None:
    figures = scale.run([100, 200], repeats=1, curves=[curve])
    (found,) = figures["curves"]
    assert (found["name"], found["unit"]) == (curve.name, curve.unit)
    if found["absent"] is None:
        assert [point["size"] for point in found["points"]] == [100, 200]
        assert all(point["ns"] > 0 for point in found["points"])
        assert found["growth"] > 0
    else:
        assert curve.measure in (scale.stop_cascade, scale.expiries)
        assert found["absent"].startswith("this engine does not do it: refused")


def test_a_command_that_is_refused_is_no_figure() -> None:
    """As when a curve's orders would not rest: what is refused costs little, and would look fast."""
    bench = scale.Bench()
    with pytest.raises(scale.Unsupported, match="refused"):
        bench.send(bench.numbered(bench.orders(10, 0)))


def test_there_may_be_more_accounts_than_the_venues_session_has_for_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapes, "VENUE", 50)
    assert scale.accounts(100) > 0


def test_a_sweep_that_does_not_meet_its_makers_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    make = scale.Bench.orders

    def one_sided(bench: scale.Bench, count: int, prices: object, **more: object) -> object:
        return make(bench, count, prices, **more | {"side": Side.BUY})

    monkeypatch.setattr(scale.Bench, "orders", one_sided)
    with pytest.raises(scale.Unsupported, match="expected 100 makers to be met"):
        scale.deep_sweep(100)


@pytest.mark.parametrize("sizes", [[], [50]])
def test_sizes_that_measure_nothing_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="expected sizes of 100 or more"):
        scale.run(sizes)


def test_the_picture_has_every_line_with_its_name() -> None:
    figures = scale.run([100, 200], repeats=1, curves=scale.CURVES[:3])
    root = ElementTree.fromstring(scale.picture(figures))
    assert len(root.findall(f"{SVG}polyline")) == 3
    texts = [text.text for text in root.iter(f"{SVG}text")]
    for curve in scale.CURVES[:3]:
        assert f"{curve.name} (per {curve.unit})" in texts


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

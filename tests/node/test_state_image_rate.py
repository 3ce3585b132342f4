"""State images are captured at a bounded rate, however often they are requested: each capture forks."""

from types import SimpleNamespace
from typing import Any

import pytest

from smrx.node import state_images
from smrx.node.state_images import HeldImage, StateImages
from smrx.wire.state_image import StreamPosition


def test_captures_have_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[int] = []

    def capture(_: StateImages, engine: Any) -> HeldImage:
        captured.append(engine.sequence)
        return HeldImage(StreamPosition(1, engine.sequence, 3, 4, 5), b"image")

    monkeypatch.setattr(StateImages, "_capture_in_child", capture)
    images, engine = StateImages(), SimpleNamespace(sequence=5)
    images.forks = True
    assert images.request(5, engine, 0.0) is not None  # type: ignore[arg-type]
    for sequence in range(6, 1000):
        engine.sequence = sequence
        assert images.request(sequence, engine, 0.0) is None  # type: ignore[arg-type]
        assert images.is_delayed(sequence, engine)  # type: ignore[arg-type]
    assert captured == [5]
    assert not images.is_delayed(998, engine)  # type: ignore[arg-type]
    monkeypatch.setattr(state_images, "_CAPTURE_SECONDS", 0.0)
    images._not_before = 0.0
    assert images.request(999, engine, 0.0) is not None  # type: ignore[arg-type]
    assert captured == [5, 999]

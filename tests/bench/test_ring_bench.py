"""`smrx bench ring`, run small: every way carries every message, and the figures have the promised keys."""

import pytest

from smrx.bench import ring_bench
from smrx.rings import ring_kernels


@pytest.mark.skipif(not ring_kernels.is_available(), reason="rings need compiled code")
def test_every_way_is_measured() -> None:
    figures = ring_bench.run(200)
    assert [row["name"] for row in figures["ways"]] == list(ring_bench.WAYS)
    for row in figures["ways"]:
        assert 0 < row["lone_us"]["p50"] <= row["lone_us"]["p99"]
        assert row["per_second"] > 0
        assert row["cpu_ns"] >= 0
    assert figures["conditions"]["window"] == ring_bench.WINDOW

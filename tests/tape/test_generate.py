"""Generated tapes: reproducible bytes, calibrated statistics; tape files: damaged ones are refused."""

from pathlib import Path

import numpy as np
import pytest
import xxhash

from smrx.tape import calibration, replay_check, tape_file
from smrx.tape.generate import RandomIntegers, WeightedRanges, generate
from smrx.tape.tape_error import TapeError
from smrx.wire.command_list import CommandList
from smrx.wire.records import COMMAND
from tests.tape import flow_statistics, recordings
from tests.tape.tape_with_terms import with_terms

#: xxh3_64 of the file of generate(5_000, seed=42). It must not change: published tapes must be reproducible.
PINNED = "6bee3fd297f06631"


@pytest.fixture(scope="module")
def flow() -> flow_statistics.FlowStatistics:
    return flow_statistics.of_tape(generate(60_000, seed=5))


def test_same_seed_gives_same_bytes() -> None:
    data = tape_file.encode(generate(5_000, seed=42))
    assert xxhash.xxh3_64_hexdigest(data) == PINNED
    assert data == tape_file.encode(generate(5_000, seed=42))
    assert data != tape_file.encode(generate(5_000, seed=43))


def test_shorter_tape_is_a_prefix_of_a_longer_one() -> None:
    assert generate(2_000, seed=9).commands.tobytes() == generate(3_000, seed=9).commands[:2_000].tobytes()


def test_message_mix_is_calibrated(flow: flow_statistics.FlowStatistics) -> None:
    assert flow.new == pytest.approx(calibration.NEW / 10_000, abs=0.02)
    assert flow.delete == pytest.approx(calibration.DELETE / 10_000, abs=0.02)
    assert flow.execution == pytest.approx(calibration.EXECUTION / 10_000, abs=0.005)
    assert flow.partial_cancel == pytest.approx(calibration.PARTIAL_CANCEL / 10_000, abs=0.001)


def test_sizes_and_prices_are_calibrated(flow: flow_statistics.FlowStatistics) -> None:
    assert flow.round_lots == pytest.approx(calibration.ROUND_LOTS / 10_000, abs=0.02)
    assert flow.hundreds == pytest.approx(0.4776, abs=0.02)
    assert flow.buying == pytest.approx(0.5, abs=0.02)
    assert flow.at_best_or_better == pytest.approx(calibration.AT_BEST_OR_BETTER / 10_000, abs=0.03)
    # The median is calibrated; the quartiles are wider, because no generated account keeps the spread narrow.
    for found, expected in zip(flow.spread_quartiles, calibration.SPREAD_QUARTILES_TICKS, strict=True):
        assert found == pytest.approx(expected, abs=5)


def test_calibration_matches_the_recording() -> None:
    for name in recordings.found():
        if "AMZN_2012-06-21" not in name:
            continue
        real = flow_statistics.of_recording(recordings.read(name))
        assert real.new == pytest.approx(calibration.NEW / 10_000, abs=1e-4)
        assert real.partial_cancel == pytest.approx(calibration.PARTIAL_CANCEL / 10_000, abs=1e-4)
        assert real.delete == pytest.approx(calibration.DELETE / 10_000, abs=1e-4)
        assert real.execution == pytest.approx(calibration.EXECUTION / 10_000, abs=1e-4)
        assert real.round_lots == pytest.approx(calibration.ROUND_LOTS / 10_000, abs=1e-3)
        assert real.hundreds == pytest.approx(0.4776, abs=1e-3)
        assert real.at_best_or_better == pytest.approx(calibration.AT_BEST_OR_BETTER / 10_000, abs=1e-3)
        assert real.spread_quartiles == calibration.SPREAD_QUARTILES_TICKS
    tables = [value for value in vars(calibration).values() if isinstance(value, tuple) and hasattr(value[0], "weight")]
    assert len(tables) == 8
    for table in tables:
        if table is not calibration.IMPROVING_BY_SPREAD:
            # The weights are rounded.
            assert sum(found.weight for found in table) == pytest.approx(10_000, abs=12)


def test_weighted_ranges_follow_their_weights() -> None:
    draws = RandomIntegers(3)
    table = WeightedRanges((calibration.Range(1, 1, 7_000), calibration.Range(10, 19, 3_000)))
    drawn = np.array([table.draw(draws) for _ in range(20_000)])
    assert (drawn == 1).mean() == pytest.approx(0.7, abs=0.02)
    assert set(drawn.tolist()) == {1, *range(10, 20)}


def test_tapes_with_different_market_ids_share_no_ids() -> None:
    first, second = generate(10, 1, market_id=10), generate(10, 1, market_id=11)
    assert first.instrument != second.instrument
    assert not set(first.accounts) & set(second.accounts)


def test_tape_file_round_trip(tmp_path: Path) -> None:
    tape = generate(500, seed=1)
    tape_file.write(tmp_path / "t.tape", tape)
    found = tape_file.read(tmp_path / "t.tape")
    assert (found.symbol, found.instrument, found.seed, found.trades) == ("AMZN-USD", 10, 1, tape.trades)
    assert found.setup.pieces() == tape.setup.pieces()
    assert found.flow.pieces() == tape.flow.pieces()
    assert len(found.accounts) == 20


def test_details_of_a_flow_are_in_its_file(tmp_path: Path) -> None:
    tape = with_terms(generate(500, seed=1))
    tape_file.write(tmp_path / "t.tape", tape)
    found = tape_file.read(tmp_path / "t.tape")
    assert found.flow.pieces() == tape.flow.pieces()
    assert len(found.first(100).flow.details) < len(found.flow.details)
    assert found.first(100).flow.pieces() == tape.flow.pieces()[:100]
    expected = replay_check.run_engine(tape)
    assert replay_check.run_engine(found) == expected
    assert expected.verified
    wrong = tape.flow.records.copy()
    wrong["details"][3] = len(tape.flow.details) + 1
    tape_file.write(tmp_path / "wrong.tape", tape._replace(flow=tape.flow._replace(records=wrong)))
    with pytest.raises(TapeError, match=r"wrong\.tape: a command names details"):
        tape_file.read(tmp_path / "wrong.tape")


def test_changed_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "t.tape"
    data = tape_file.encode(generate(50, seed=1))
    for place in (0, 8, 12, 16, 24, 32, 40, 63, 64, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(TapeError, match=r"t\.tape: (not a tape file|tape version|the file is damaged)"):
            tape_file.read(path)


@pytest.mark.parametrize("kept", [0, 10, 63, 64, 100, -1, -64])
def test_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "t.tape"
    path.write_bytes(tape_file.encode(generate(50, seed=1))[:kept])
    with pytest.raises(TapeError, match=r"t\.tape: (not a tape file|the file is damaged)"):
        tape_file.read(path)


def test_tape_without_instrument_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.tape"
    tape = generate(5, seed=1)
    tape_file.write(path, tape._replace(setup=CommandList(np.zeros(0, dtype=COMMAND))))
    with pytest.raises(TapeError, match="the tape's setup lists no instrument"):
        tape_file.read(path)


def test_files_that_cannot_be_opened_are_reported(tmp_path: Path) -> None:
    with pytest.raises(TapeError, match=r"none\.tape: cannot be read"):
        tape_file.read(tmp_path / "none.tape")
    with pytest.raises(TapeError, match="cannot be written"):
        tape_file.write(tmp_path / "no" / "t.tape", generate(5, seed=1))


@pytest.mark.parametrize(
    ("commands", "seed", "market_id", "sentence"),
    [
        (0, 1, 10, "commands: expected 1 to"),
        (1, -1, 10, "seed: expected 0 to"),
        (1, 1 << 64, 10, "seed: expected 0 to"),
        (1, 1, 0, "market id: expected 1 to"),
        (1, 1, 840, "market id: expected 1 to 10000000 except 840"),
    ],
)
def test_arguments_out_of_range_are_refused(commands: int, seed: int, market_id: int, sentence: str) -> None:
    with pytest.raises(TapeError, match=sentence):
        generate(commands, seed, market_id)

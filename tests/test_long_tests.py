"""The order of the tests for several processes: every test once, and each process begins with long ones."""

import pytest

from tests import long_tests
from tests.test_tidy import ROOT

IDS = [
    *(f"tests/client/test_a.py::test_{number}" for number in range(40)),
    *("tests/e2e/test_join.py::test_one", "tests/e2e/test_join.py::test_two"),
    *(f"tests/sim/test_seeds.py::test_seeds_hold[{number}]" for number in range(3)),
    *(f"tests/wire/test_z.py::test_{number}" for number in range(17)),
]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_process_gets_an_equal_share_that_begins_with_long_tests(processes: int) -> None:
    found = long_tests.order(IDS, processes)
    assert sorted(found) == list(range(len(IDS)))
    names = [IDS[place] for place in found]
    at = 0
    for process in range(processes):
        # As pytest-xdist divides them.
        count = (len(names) - at) // (processes - process)
        share, at = names[at : at + count], at + count
        long = [name.startswith(tuple(long_tests.LONG)) for name in share]
        assert long[0]
        assert long == sorted(long, reverse=True)
        # Those that share fixtures stay in one process.
        assert sum("test_join" in name for name in share) in (0, 2)


def test_long_tests_exist() -> None:
    for start in long_tests.LONG:
        path, _, name = start.partition("::")
        assert name.rstrip("[") in (ROOT / path).read_text(encoding="utf-8")

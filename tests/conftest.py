"""Settings of all tests: Hypothesis profiles, rewriting of transcripts, and tests in several processes.

HYPOTHESIS_PROFILE=dev|ci|soak selects the number of examples. The default is ci if the variable CI is set, else dev.
"""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests import long_tests

# Started under nohup, the tests and the nodes they start would ignore SIGHUP.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadlines: the machine may be slow, and a first call may compile.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _COMMON, max_examples=40)
# The same examples in every run of CI, so that a change fails only by its own fault; soak searches for new failures.
settings.register_profile("ci", _COMMON, max_examples=120, derandomize=True)
settings.register_profile("soak", _COMMON, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write the oracle's answers into the transcripts instead of comparing them (check the diff)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist its own share of ports, because clusters are started at the same time."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        count = worker["workercount"]
        # A worker that replaces a crashed one has a number above the count.
        number = int(worker["workerid"].removeprefix("gw")) % count
        os.environ["SMRX_PORTS_SHARE"] = f"{number + 1}/{count}"


def pytest_collection_finish() -> None:
    """Let no later garbage collection look through the modules and the tests, which stay to the end."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long tests in each process of pytest-xdist."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        items[:] = [items[place] for place in long_tests.order([item.nodeid for item in items], worker["workercount"])]

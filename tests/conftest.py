"""Settings every test shares: how hard Hypothesis tries, and whether transcripts are rewritten.

HYPOTHESIS_PROFILE=dev|ci|soak chooses the effort; ci is the default where the variable CI is set, else dev.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# A slow shared machine is not a failing test, and a first call may compile.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _COMMON, max_examples=40)
# A run of CI is the same run tomorrow: no surprise in somebody else's change. soak looks for what it missed.
settings.register_profile("ci", _COMMON, max_examples=120, derandomize=True)
settings.register_profile("soak", _COMMON, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what the oracle answers into the transcripts instead of comparing (look at the diff)",
    )

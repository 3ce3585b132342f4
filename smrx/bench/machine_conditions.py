"""The conditions that a figure holds under: the machine and the versions. Called by every benchmark of the engine."""

import os
import platform
from typing import Any

import numba
import numpy as np


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def load() -> float | None:
    """How many processes wanted a core in the last minute; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def machine() -> dict[str, Any]:
    """What a reader needs to judge a figure by, and to repeat it."""
    return {
        "machine": f"{platform.machine()} {platform.system()}",
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "load_before": load(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
    }

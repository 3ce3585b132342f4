"""Describe the machine and the versions that a figure was measured with. Called by every benchmark."""

import os
import platform
from typing import Any

import numba
import numpy as np


def processor() -> str:
    """Return the processor's name as the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def load() -> float | None:
    """Return the load average of the last minute, or None if the system does not report it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge a figure and to repeat its measurement."""
    return {
        "machine": f"{platform.machine()} {platform.system()}",
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "load_before": load(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
    }

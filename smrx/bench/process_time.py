"""Read the processor time of another process from Linux. Called by the benchmarks that run nodes and peers."""

import os
from typing import Final

_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process and all its threads; raises OSError if it has ended."""
    with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
        # The name in parentheses may have spaces; user and system time are the 12th and 13th field after it.
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

"""The deterministic simulator: real replicas, engine, gateway and sessions; simulated time, network, disk and faults.

One seed in, one verdict out, the same on every machine. Called by `smrx sim` and by the tests.
"""

from smrx.sim.parts import REAL, Parts
from smrx.sim.run import Verdict, simulate

__all__ = ["REAL", "Parts", "Verdict", "simulate"]

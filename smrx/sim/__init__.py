"""The deterministic simulator: real replicas, engine, gateway and sessions on simulated time, network, disk and faults.

A seed determines the run and its result, on every machine. Called by `smrx sim` and by the tests.
"""

from smrx.sim.run import RunResult, simulate
from smrx.sim.simulated_cluster import REAL, ClusterComponents

__all__ = ["REAL", "ClusterComponents", "RunResult", "simulate"]

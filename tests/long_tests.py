"""Order the tests for several processes: the long ones first, the same share of them in each process.

pytest-xdist gives each process an equal number of tests, in their order; a process without tests takes half of what
another has left. A long test that begins last would keep one core busy and leave the others idle. Called by conftest.py
in every process, which all have to find the same order.
"""

from collections.abc import Sequence

#: Start of a test's id -> seconds on two cores. Tests of one start stay together, in their order, because they share
#: fixtures; if it ends with "::" or "[", each is on its own and takes so long.
LONG: dict[str, float] = {
    "tests/cli/test_commands.py": 15,
    "tests/cli/test_disk_commands.py": 15,
    "tests/cli/test_unwritten_output.py": 30,
    "tests/consensus/test_chaos.py": 15,
    "tests/consensus/test_disk_members.py": 20,
    "tests/e2e/test_bad_input.py": 10,
    "tests/e2e/test_clocks.py": 30,
    "tests/e2e/test_cluster.py": 40,
    "tests/e2e/test_credentials.py": 10,
    "tests/e2e/test_descriptors.py": 10,
    "tests/e2e/test_disk.py": 40,
    "tests/e2e/test_disconnect.py": 15,
    "tests/e2e/test_feed_attacks.py": 15,
    "tests/e2e/test_gateway.py": 30,
    "tests/e2e/test_gateway_bad_input.py": 15,
    "tests/e2e/test_gateway_keys.py": 15,
    "tests/e2e/test_go_client.py": 20,
    "tests/e2e/test_ipv6.py": 10,
    "tests/e2e/test_join.py": 40,
    "tests/e2e/test_keys.py": 20,
    "tests/e2e/test_leadership_transfer.py": 20,
    "tests/e2e/test_members.py": 25,
    "tests/e2e/test_reads.py": 30,
    "tests/e2e/test_replication_checks.py": 30,
    "tests/e2e/test_settlement.py": 40,
    "tests/e2e/test_shadow.py::": 20,
    "tests/e2e/test_siege.py::test_minute": 80,
    "tests/e2e/test_siege.py::test_node_without_a_bound_is_found[": 20,
    "tests/e2e/test_torture.py::test_minute": 70,
    "tests/e2e/test_torture.py::test_nodes": 40,
    "tests/e2e/test_updates.py": 15,
    "tests/e2e/test_upgrade.py": 100,
    "tests/engine/test_execution_modes.py": 50,
    "tests/property/test_determinism.py": 25,
    "tests/property/test_differential.py": 60,
    "tests/settlement/test_crash.py": 20,
    "tests/sim/test_fault_injection.py": 20,
    "tests/sim/test_planted_faults.py": 60,
    "tests/sim/test_seeds.py::test_seeds_hold[": 25,
    "tests/sim/test_upgrades.py": 60,
}


def order(ids: Sequence[str], processes: int) -> list[int]:
    """Return the places of the tests in a balanced order: each process's share begins with its long ones."""
    groups: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    others: list[int] = []
    for place, name in enumerate(ids):
        start = next((start for start in LONG if name.startswith(start)), None)
        if start is None:
            others.append(place)
            continue
        group = name if start.endswith(("::", "[")) else start
        groups.setdefault(group, []).append(place)
        seconds[group] = LONG[start]
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = [0.0] * processes
    for group in sorted(groups, key=lambda name: (-seconds[name], name)):
        least = loads.index(min(loads))
        shares[least] += groups[group]
        loads[least] += seconds[group]
    found: list[int] = []
    for at, share in enumerate(shares):
        wanted = (len(ids) - len(found)) // (processes - at)
        fill = max(0, wanted - len(share))
        # In their first order: the tests of a package share fixtures, too.
        found += [*sorted(share), *others[:fill]]
        del others[:fill]
    return found + others

"""Run one seed: commands while links fail, messages are delayed or lost and processes crash; then a full repair.

The faults of a run are drawn from its seed. `python -m tests.consensus.chaos FIRST COUNT` searches further.
"""

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

from smrx.consensus import Replica
from tests.consensus.harness import Cluster, simulated


@dataclass(frozen=True)
class Faults:
    """The faults of a run."""

    cuts: bool = True
    crashes: bool = True
    losses: bool = True
    repeats: bool = True
    seconds: float = 3.0


def run(seed: int, replica_class: type[Replica] = Replica, *, nodes: int = 3, faults: Faults = Faults()) -> Cluster:
    """Run one seed; raises Violation. Returns the cluster as it ended."""
    with simulated(seed) as clock:
        chance = random.Random(f"faults {seed}")
        cluster = Cluster(
            clock,
            seed,
            nodes,
            replica_class=replica_class,
            compaction_entries=chance.choice((8, 30, 1000)),
            batch_bytes=chance.choice((40, 200, 1 << 20)),
        )
        cluster.network.delay = chance.choice(((0.0002, 0.002), (0.001, 0.02), (0.0005, 0.12)))
        if faults.losses:
            cluster.network.loss = chance.choice((0.0, 0.0, 0.01, 0.1))
        if faults.repeats:
            cluster.network.repeats = chance.choice((0.0, 0.02, 0.1))
        _storm(cluster, chance, faults)
        _repair(cluster)
        return cluster


def _storm(cluster: Cluster, chance: random.Random, faults: Faults) -> None:
    clock = cluster.clock
    end = clock.time + faults.seconds
    next_fault = clock.time + chance.uniform(0.5, 2.0)
    gap = chance.choice((0.005, 0.02, 0.05))
    next_submit = clock.time
    while clock.time < end:
        cluster.step(min(end, next_fault, next_submit))
        if clock.time >= next_submit:
            next_submit = clock.time + chance.expovariate(1 / gap)
            _submit_everywhere(cluster)
        if clock.time >= next_fault:
            next_fault = clock.time + chance.expovariate(1 / 0.4)
            _one_fault(cluster, chance, faults)


def _submit_everywhere(cluster: Cluster) -> None:
    # A deposed leader may still accept commands.
    for member in cluster.members.values():
        if member.up and member.replica.is_leader:
            cluster.submit(member)
            member.turn()


def _one_fault(cluster: Cluster, chance: random.Random, faults: Faults) -> None:
    choices: list[Callable[[], None]] = [cluster.network.heal]
    up = [node for node in cluster.ids if cluster.members[node].up]
    if faults.cuts:
        choices += [
            lambda: cluster.network.isolate(chance.choice(cluster.ids), cluster.ids),
            lambda: cluster.network.isolate(chance.choice(cluster.ids), [chance.choice(cluster.ids)]),
            lambda: cluster.network.cut.add((chance.choice(cluster.ids), chance.choice(cluster.ids))),
        ]
    if faults.crashes:
        # Memory is lost with the process: if more than a minority crash at once, the cluster correctly stops for good.
        learning = [node for node in up if cluster.members[node].replica.role == "learner"]
        spare = (len(cluster.ids) - 1) // 2 - (len(cluster.ids) - len(up)) - len(learning)
        if spare > 0:
            choices += [lambda: cluster.crash(chance.choice(up))]
        for node in cluster.ids:
            if node not in up:
                choices += [lambda node=node: cluster.restart(node)] * 2
    chance.choice(choices)()


def _repair(cluster: Cluster) -> None:
    cluster.network.heal()
    cluster.network.loss = cluster.network.repeats = 0.0
    cluster.network.delay = (0.0002, 0.002)
    for node in cluster.ids:
        if not cluster.members[node].up:
            cluster.restart(node)
    # Five election timeouts for a leader and a commit.
    cluster.commit(3, seconds=5 * cluster.timing.election_max_ms / 1000)
    cluster.check_end()


def main() -> None:
    """Search a range of seeds and print the first that fails."""
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        try:
            run(seed, nodes=3 if seed % 4 else 5)
        except Exception:
            print(f"python -m tests.consensus.chaos {seed} 1", file=sys.stderr)
            raise
    print(f"{count} seeds")


if __name__ == "__main__":
    main()

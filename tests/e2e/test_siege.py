"""A minute of attacks on a real cluster: every bound is kept, and nodes without a bound are found."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from cluster.siege.attack_table import ATTACKS
from cluster.siege.siege_command import planned
from cluster.siege.siege_run import Siege
from cluster.siege.siege_verdict import Measurement
from cluster.torture.cluster_under_test import environment

#: Tested against one gateway in test_gateway_bad_input.py and test_gateway_attacks.py, without a measurement.
NOT_MEASURED = {"gateway-garbage", "gateway-half-records", "gateway-slow-readers", "gateway-stopped"}
#: What still breaks a bound: none of these may stay here when its owner has landed.
NOT_YET: set[str] = set()


def test_minute_of_attacks_breaks_no_bound() -> None:
    names = [option for name in ATTACKS if name not in NOT_YET | NOT_MEASURED for option in ("--attack", name)]
    ended = subprocess.run(
        [sys.executable, "-m", "cluster", "siege", "--minutes", "1", "--json", *names],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=environment(),
    )
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)
    broken = {attack["attack"]: attack["violations"] for attack in found["attacks"] if attack["violations"]}
    assert broken == {}, json.dumps(found, indent=2)
    assert ended.returncode == 0
    assert len(found["attacks"]) == len(ATTACKS) - len(NOT_YET | NOT_MEASURED)
    for attack in found["attacks"]:
        assert attack["beside"]["orders"] > 0, attack
        assert attack["memory"]["before"] > 0, attack


#: Longer than an election of these clusters takes. A node without a bound does not settle, so a run waits this long
#: several times; good nodes have the full time in the run above.
SETTLE_SECONDS = 6.0


def attacked(fault: str, attack: str) -> Measurement:
    plan = replace(planned(0.05, 1), settle_seconds=SETTLE_SECONDS)
    program = (sys.executable, "-m", "tests.cluster.siege.unbounded_node", fault)
    (found,) = Siege(plan, program=program).run([attack])
    return found


@pytest.mark.parametrize(
    ("fault", "attack", "problems"),
    [
        ("keeps-messages", "raft-frames", ["MiB during the attack", "MiB after the attack"]),
        ("reads-slowly", "raft-frames", ["leader changes"]),
        ("ends-on-garbage", "garbage", ["ended"]),
        ("takes-pings-of-others", "pings-of-others", ["pings of another sender kept the orders"]),
        ("keeps-unread-answers", "unread-answers", ["MiB of answers waited for clients that do not read"]),
        ("gateway-keeps-answers", "gateway-unread-answers", ["the gateway grew by"]),
        ("gateway-ends-on-garbage", "gateway-garbage", ["the gateway ended"]),
        ("thread-a-connection", "metrics", ["threads; at most", "requests for /health answered"]),
    ],
)
def test_node_without_a_bound_is_found(fault: str, attack: str, problems: list[str]) -> None:
    found = attacked(fault, attack)
    for problem in problems:
        assert any(problem in violation for violation in found.violations), found

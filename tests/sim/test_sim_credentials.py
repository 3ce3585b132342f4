"""Simulated clients with credentials: nothing is acknowledged without the right, and faults of the checks are found."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smrx.node.order_entry import OrderEntry
from smrx.sim import REAL, ClusterComponents, simulate
from smrx.sim.profile import Profile, draw
from smrx.sim.small_tables import SmallState
from smrx.wire.codes import Permission


def with_credentials(drawn: Profile) -> Profile:
    return replace(drawn, credentials=True, gateways=0, gateway_clients=0, nodes=3, spares=0, read_seconds=0.0)


class TakesEverySession(OrderEntry):
    """A frame may name sessions of other credentials than its sender's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"has_keys": False})


class AppliesWithOtherRights(SmallState):  # type: ignore[misc,valid-type]
    """While an entry is applied, all credentials have other rights than recorded, on every node alike."""

    field = ""
    clear = 0
    add = 0

    def apply(self, log_index: int, term: int, entry: bytes) -> None:
        rows = self.engine._state.credentials
        slots = np.flatnonzero(rows["live"])
        kept = rows[self.field][slots].copy()
        rows[self.field][slots] = kept & (0xFFFF ^ self.clear) | self.add
        super().apply(log_index, term, entry)
        after = self.engine._state.credentials[self.field]
        after[slots] = kept | (after[slots] & self.clear)


class ForgetsRevocations(AppliesWithOtherRights):
    """A revoked credential goes on."""

    field, clear = "revoked", 1


class IgnoresPermissions(AppliesWithOtherRights):
    """Every credential may trade."""

    field, add = "permissions", int(Permission.TRADE)


def of_state(state: Any) -> ClusterComponents:
    return REAL.replace(state=state, reference=state, next_state=state)


@pytest.mark.parametrize(
    ("components", "failure"),
    [
        (REAL.replace(order_entry=TakesEverySession), "own sessions only"),
        (of_state(ForgetsRevocations), "rights"),
        (of_state(IgnoresPermissions), "rights"),
    ],
    ids=["takes every session", "forgets revocations", "ignores permissions"],
)
def test_planted_fault_is_found(components: ClusterComponents, failure: str) -> None:
    for seed in range(10):
        result = simulate(seed, components, with_credentials)
        if result.failure is not None:
            assert re.search(failure, result.failure), result.failure
            assert simulate(seed, focus=with_credentials).failure is None
            return
    raise AssertionError("expected a failure within ten seeds")


def test_credentials_are_revoked_while_requests_are_under_way() -> None:
    lines = ""
    for seed in range(5):
        result = simulate(seed, focus=with_credentials)
        assert result.failure is None, result.failure
        lines += "\n".join(result.trace.lines(None))
    assert "as its credential is revoked" in lines


def test_some_seeds_draw_credentials() -> None:
    assert 20 < sum(draw(seed).credentials for seed in range(200)) < 60

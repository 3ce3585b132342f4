"""Fixtures: a shared three-node cluster for tests that leave it intact, and a factory for others."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smrx.local import LocalCluster


@pytest.fixture(scope="package")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("shared-cluster")) as cluster:
        cluster.wait_leader()
        yield cluster


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., LocalCluster]]:
    """Return a function that starts a cluster; each is stopped after the test."""
    made: list[LocalCluster] = []

    def make(*, start: bool = True, **options: Any) -> LocalCluster:
        cluster = LocalCluster(tmp_path / f"cluster-{len(made)}", **options)
        made.append(cluster)
        if start:
            cluster.start()
            cluster.wait_leader()
        return cluster

    yield make
    for cluster in made:
        cluster.stop()

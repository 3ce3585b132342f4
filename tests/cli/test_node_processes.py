"""Background nodes: only a process that was started here is found or stopped."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from smrx.cli import node_processes
from smrx.cli.node_processes import ProcessFile
from smrx.config import Config, ConfigError, NodeConfig


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(cluster="test", nodes=(NodeConfig(id=1, port=7110),), data_dir=str(tmp_path))


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does nothing until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def write_process_file(config: Config, pid: int, identity: str, cluster: str = "test") -> Path:
    path = node_processes.pid_file_path(config, 1)
    path.write_bytes(msgspec.json.encode(ProcessFile(pid, identity, cluster, 1)))
    return path


def own_identity(pid: int) -> str:
    found = node_processes.process_identity(pid)
    assert found is not None
    return found


def test_started_process_is_found_and_stopped(config: Config, sleeper: "subprocess.Popen[bytes]") -> None:
    path = write_process_file(config, sleeper.pid, own_identity(sleeper.pid))
    found = node_processes.running_process(config, 1)
    assert found is not None
    assert found.pid == sleeper.pid
    assert node_processes.stop_nodes(config, [1]) == [1]
    assert sleeper.wait(timeout=60) < 0
    assert not path.exists()
    assert node_processes.running_process(config, 1) is None


def test_another_process_with_the_same_id_is_not_stopped(config: Config, sleeper: "subprocess.Popen[bytes]") -> None:
    write_process_file(config, sleeper.pid, "an earlier process with this id")
    assert node_processes.running_process(config, 1) is None
    assert node_processes.stop_nodes(config, [1]) == []
    assert sleeper.poll() is None


def test_two_processes_have_different_identities(sleeper: "subprocess.Popen[bytes]") -> None:
    assert own_identity(sleeper.pid) != own_identity(os.getpid())
    assert own_identity(os.getpid()) == own_identity(os.getpid())


def test_exited_process_has_no_identity(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert node_processes.process_identity(sleeper.pid) is None, "a zombie is not a running node"
    sleeper.wait()
    assert node_processes.process_identity(sleeper.pid) is None


def test_data_directory_of_another_cluster_is_refused(config: Config, sleeper: "subprocess.Popen[bytes]") -> None:
    write_process_file(config, sleeper.pid, own_identity(sleeper.pid), cluster="other")
    with pytest.raises(ConfigError, match="node 1 of cluster 'other'"):
        node_processes.stop_nodes(config, [1])
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", [b"", b"17", b'{"pid": "x"}', b"\xff\xfe"])
def test_unreadable_process_file_is_named(config: Config, content: bytes) -> None:
    path = node_processes.pid_file_path(config, 1)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="process file of the node is unreadable"):
        node_processes.running_process(config, 1)

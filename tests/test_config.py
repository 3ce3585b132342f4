"""The configuration: dump and load agree, and every error names the file and the key."""

import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smrx import config, toml_file
from smrx.config import Config, ConfigError, Limits, NodeConfig, Settlement, SinkConfig, Timing

SINK = "[[settlement.sinks]]\n"
NODE = "[[nodes]]\nid = 1\nport = 7110\n"


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "cluster.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_default_is_three_nodes_on_loopback() -> None:
    found = config.load()
    assert [node.id for node in found.nodes] == [1, 2, 3]
    assert all(node.host == "127.0.0.1" for node in found.nodes)
    assert found.durability == "memory"
    assert config.parse(msgspec.to_builtins(found), "default") == found, "the default is valid"


def test_ports_follow_the_raft_port_unless_set() -> None:
    node = NodeConfig(id=1, port=7110, admin_port=9000)
    assert node.raft_address == "tcp://127.0.0.1:7110"
    assert node.orders_address == "tcp://127.0.0.1:7111"
    assert node.events_address == "tcp://127.0.0.1:7112"
    assert node.admin_address == "tcp://127.0.0.1:9000"
    assert node.metrics_bind == ("127.0.0.1", 7115)


def test_retransmission_port_of_older_versions_is_ignored() -> None:
    nodes = [{"id": 1, "port": 7110, "retransmit_port": 7113}]
    assert config.parse({"nodes": nodes}, "old").nodes == (NodeConfig(id=1, port=7110),)


ports = st.integers(1024, 60_000)


@given(
    st.lists(ports, min_size=1, max_size=5, unique_by=lambda port: port // 10),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.integers(1, 90),
    st.integers(1, 1 << 40),
)
def test_load_of_dump_is_equal(bases: list[int], name: str, heartbeat: int, ring: int) -> None:
    written = Config(
        cluster=name,
        data_dir=name,
        venue_keys=("v" * 40,),
        nodes=tuple(
            NodeConfig(id=i, port=base // 10 * 10, orders_port=base // 10 * 10 + 7, public_keys=(f"{i:040}",))
            for i, base in enumerate(bases, 1)
        ),
        timing=Timing(heartbeat_ms=heartbeat),
        limits=Limits(event_ring=ring),
        settlement=Settlement(
            directory=name,
            hook=name,
            sinks=(
                SinkConfig(kind="csv", rotate_bytes=ring, rotate_daily=ring % 2 == 0),
                SinkConfig(kind="postgresql", dsn=f"dbname={name}", schema=name),
            ),
        ),
    )
    assert config.parse(tomllib.loads(config.dump(written)), "dumped") == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster = 5", r"cluster: expected str, got int"),
        ("nodes = []", r"nodes: at least one node is required"),
        ("clutser = 'x'", r"contains unknown field clutser"),
        ("[[nodes]]\nid = 1\n", r"nodes\[0\]: missing required field port"),
        ("[[nodes]]\nid = 0\nport = 7110\n", r"nodes\[0\]\.id: expected int >= 1"),
        ("[[nodes]]\nid = 1\nport = 70000\n", r"nodes\[0\]\.port: expected int <= 65535"),
        ("[[nodes]]\nid = 1\nport = '7110'\n", r"nodes\[0\]\.port: expected int, got str"),
        ("[[nodes]]\nid = 1\nport = 65534\n", r"node 1: port 65537 is above 65535"),
        (NODE + NODE, r"ids must be unique, found \[1, 1\]"),
        (
            NODE + "[[nodes]]\nid = 2\nport = 7112\n",
            r"address tcp://127.0.0.1:7112 is used by node 1 and by node 2",
        ),
        ("[timing]\nheartbeat_ms = 0\n", r"timing\.heartbeat_ms: expected int >= 1"),
        ("[timing]\nheartbeat_ms = 400\n", r"expected 3 x heartbeat_ms < election_min_ms < election_max_ms, found 400"),
        ("[timing]\nelection_max_ms = 600\n", r"expected 3 x heartbeat_ms < election_min_ms < election_max_ms"),
        ("[timing]\nleader_fallback_ms = 600\n", r"leader_fallback_ms: expected a value between .* found 600"),
        (
            "[timing]\nmax_clock_skew_ms = 449\n",
            r"max_clock_skew_ms: expected at least leader_fallback_ms .450., found 449",
        ),
        ("[timing]\nmax_clock_skew_ms = 3600001\n", r"timing\.max_clock_skew_ms: expected int <= 3600000"),
        ("[timing]\ndisconnect_ms = 99\n", r"timing\.disconnect_ms: expected int >= 100"),
        ("[limits]\nevent_ring = -1\n", r"limits\.event_ring: expected int >= 1"),
        ("durability = 'tape'", r"durability: invalid enum value 'tape'"),
        ("admin_from = ['10.0.0.5']", r"admin_from: no longer allowed, as no address proves who sends a request"),
        ("venue_keys = ['desk']", r"venue_keys"),
        (f"venue_keys = ['{40 * 'v'}']", r"venue_keys: no node has public_keys; .*`smrx cluster keygen`"),
        (
            f"venue_keys = ['{40 * 'v'}']\n{NODE}public_keys = ['{40 * 'v'}']\n",
            r"venue_keys: key v+ is that of node 1",
        ),
        ("[limits]\nsession_commands_per_second = 4095\n", r"session_commands_per_second: expected int >= 4096"),
        ("[limits]\nconnection_bytes = 1\n", r"connection_bytes: expected int >= 1048576"),
        ("cluster = ", r"not valid TOML: Invalid value"),
        ("[settlement]\nsinks = []\n", r"settlement.sinks: at least one sink is required"),
        (SINK + "kind = 'tape'\n", r"settlement\.sinks\[0\]\.kind: invalid enum value 'tape'"),
        (SINK + "kind = 'lmdb'\n", r"settlement.sinks, lmdb \(number 1\): path is missing"),
        (SINK + "kind = 'postgresql'\n", r"postgresql \(number 1\): dsn is missing"),
        (SINK + "kind = 'csv'\ndsn = 'x'\n", r"unknown field dsn; allowed: path, rotate_bytes, rotate_daily"),
        (SINK + "kind = 'csv'\nrotate_bytes = 0\n", r"settlement\.sinks\[0\]\.rotate_bytes: expected int >= 1"),
        (2 * (SINK + "kind = 'csv'\n"), r"csv \(number 2\): the same destination as number 1"),
    ],
)
def test_error_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "cluster.toml"))
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration: No such file"):
        config.load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        config.load(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        config.load(tmp_path)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + NODE.encode(), NODE.replace("\n", "\r\n").encode()])
def test_file_with_byte_order_mark_or_crlf_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cluster.toml"
    path.write_bytes(data)
    assert [node.id for node in config.load(path).nodes] == [1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a = " + b"[" * 100_000, "not valid TOML: the nesting is too deep"),
        (b"a = " + b"[" * 100 + b"]" * 100, "unknown field a"),
        (b"a = " + b"{a = " * 50 + b"1" + b"}" * 50, "unknown field a"),
        (b"a = " + b"9" * 5000, "not valid TOML: an integer has too many digits"),
        (b"a = 0x" + b"f" * 5000, "not valid TOML: an integer has too many digits"),
        (b"cluster = -" + b"9" * 5000, "not valid TOML: an integer has too many digits"),
        (b".".join([b"a"] * 20_000) + b" = 1", r"not valid TOML: a key of more than 32 parts .at line 1."),
        (b"x = 1\n[" + b".".join([b"'a.b'"] * 20_000) + b"]", r"a key of more than 32 parts .at line 2."),
        (b"a = {" + b" . ".join([b"a"] * 20_000) + b" = 1}", r"a key of more than 32 parts .at line 1."),
        (b"\n".join(b"a%d.b = 1" % at for at in range(20_000)), "unknown field"),
        (b"\n".join(b"a.b%d = 1" % at for at in range(20_000)), "unknown field a"),
        (b"a" * 3_000_000, "not valid TOML"),
        (b"#" * (5 << 20), "the configuration is longer than 4 MiB"),
        (b"\0" * 50, "not valid TOML"),
        (NODE.encode("utf-16"), "the configuration is not UTF-8 text"),
        (bytes(range(128, 256)), "the configuration is not UTF-8 text"),
    ],
)
def test_file_that_is_no_configuration_raises_config_error(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(path)
    # Python's own parser takes many seconds for keys with thousands of dots.
    assert time.process_time() - started < 3.0
    assert len(str(caught.value)) < 1000


def test_key_with_as_many_parts_as_allowed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(".".join(["a"] * 32) + " = '" + "1." * 100 + "x'", encoding="utf-8")
    found = toml_file.read(path, "the file")
    for _ in range(32):
        found = found["a"]
    assert str(found).endswith("1.x")


@given(
    st.dictionaries(
        st.sampled_from(["cluster", "nodes", "timing", "limits", "durability", "data_dir", "x"]),
        st.recursive(
            st.none() | st.integers() | st.text() | st.booleans(), lambda inner: st.lists(inner), max_leaves=5
        ),
    )
)
def test_any_table_is_valid_or_raises_config_error(raw: dict[str, Any]) -> None:
    try:
        found = config.parse(raw, "any")
    except ConfigError:
        return
    assert found.nodes


def test_unknown_node_id_lists_the_known_ids() -> None:
    with pytest.raises(ConfigError, match=r"cluster 'local' has no node 9; its nodes are 1, 2, 3"):
        Config().node(9)
    assert Config().node(2).id == 2


def test_each_node_has_its_own_directory() -> None:
    found = Config(data_dir="~/smrx")
    assert found.node_dir(1) != found.node_dir(2)
    assert found.node_dir(1).is_absolute()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_address_may_stand_in_brackets(host: str) -> None:
    node = NodeConfig(id=1, port=7000, host=host)
    assert node.on_loopback
    assert node.raft_address == "tcp://[::1]:7000"
    assert node.metrics_bind == ("::1", 7005)


@pytest.mark.parametrize("host", ["", "a b", "tcp://a", "::g", "[a]", "[::1", "1:2", "a/b"])
def test_invalid_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="node 1: host: expected a host name or an IP address"):
        config.parse({"nodes": [{"id": 1, "port": 7000, "host": host}]}, "cluster.toml")


def test_hosts_of_other_machines_are_not_loopback() -> None:
    assert not any(NodeConfig(id=1, port=7000, host=host).on_loopback for host in ("10.0.0.1", "fd00::1", "node-1"))

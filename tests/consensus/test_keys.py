"""Links with keys accept only holders of the members' keys; key files are checked."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smrx.config import Config, ConfigError, NodeConfig, dump, load, parse
from smrx.consensus import keys, messages
from smrx.consensus.keys import LinkKeys
from smrx.key_files import KeyPair, KeysError, generate, read, write
from tests.consensus.harness import entry
from tests.consensus.sockets import CLUSTER, Mesh, Node, Outsider

PAIRS = {node: generate() for node in (1, 2, 3)}


def links(pairs: dict[int, KeyPair], also: dict[int, str] | None = None) -> dict[int, LinkKeys]:
    """Keys for every node; `also` are further public keys under which a node may be known, tried first."""
    public = {node: ((also[node],) if also and node in also else ()) + (pair.public,) for node, pair in pairs.items()}
    return {node: LinkKeys(pair, {o: k for o, k in public.items() if o != node}) for node, pair in pairs.items()}


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path, links(PAIRS))
    yield mesh
    mesh.close()


def turns_away(mesh: Mesh, victim: Node, outsider: Outsider) -> bool:
    """Return whether the node ends the connection of a process that has a message for it, and receives nothing."""
    outsider.send(b"let me in")
    mesh.run_until(lambda: outsider.has_ended or victim.transport.dropped["undecodable"])
    outsider.close()
    return victim.transport.dropped["undecodable"] == 0


def test_members_with_keys_elect_and_commit(mesh: Mesh) -> None:
    mesh.commit(entry(1))
    mesh.commit(entry(2, messages.MAX_ENTRY_BYTES))
    assert [node.machine.numbers for node in mesh.nodes] == [[1, 2]] * 3


def test_unknown_peer_without_key_is_refused(mesh: Mesh) -> None:
    victim = mesh.elect()
    assert turns_away(mesh, victim, Outsider(mesh, victim))
    mesh.commit(entry(1))


def test_unknown_peer_with_its_own_key_is_refused(mesh: Mesh) -> None:
    victim = mesh.elect()
    known = PAIRS[victim.replica.node_id].public
    assert turns_away(mesh, victim, Outsider(mesh, victim, generate(), known))
    mesh.commit(entry(1))


def test_member_that_expects_another_server_key_is_refused(mesh: Mesh) -> None:
    victim = mesh.elect()
    other = next(pair for node, pair in PAIRS.items() if node != victim.replica.node_id)
    assert turns_away(mesh, victim, Outsider(mesh, victim, other, generate().public))
    mesh.commit(entry(1))


def test_unknown_peer_can_connect_without_keys(tmp_path: Path) -> None:
    """What the tests above would see if the door were open."""
    mesh = Mesh(tmp_path)
    victim = mesh.elect()
    assert not turns_away(mesh, victim, Outsider(mesh, victim))
    mesh.close()


def test_node_with_wrong_key_is_ignored_and_named_as_awaited(tmp_path: Path) -> None:
    of_its_own = {**PAIRS, 3: generate()}
    mixed = {**links(PAIRS), 3: LinkKeys(of_its_own[3], links(PAIRS)[3].peers)}
    mesh = Mesh(tmp_path, mixed)
    members = mesh.nodes[:2]
    told = "waiting for node 3: a new cluster starts once all of its nodes have connected"
    mesh.run_until(lambda: all(node.replica.waiting == told for node in members))
    assert members[0].transport.is_connected(2)
    assert members[1].transport.is_connected(1)
    assert not any(node.transport.is_connected(3) for node in members)
    assert not any(mesh.nodes[2].transport.is_connected(node) for node in (1, 2))
    mesh.close()


def test_peer_is_reached_with_any_of_its_keys(tmp_path: Path) -> None:
    """During a key change the others have two keys and do not know which one is in use."""
    new = generate()
    mesh = Mesh(tmp_path, links(PAIRS, also={2: new.public}))
    mesh.commit(entry(1))
    assert [node.machine.numbers for node in mesh.nodes] == [[1]] * 3
    mesh.close()


def test_idle_connections_do_not_stop_the_cluster(mesh: Mesh) -> None:
    victim = mesh.elect()
    port = int(victim.address.rsplit(":", 1)[1])
    flood = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    mesh.commit(entry(1))
    for connection in flood:
        connection.setblocking(False)

    def hung_up(connection: socket.socket) -> bool:
        try:
            while connection.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    mesh.run_until(lambda: all(map(hung_up, flood)))
    for connection in flood:
        connection.close()
    mesh.commit(entry(2))


def forged(mesh: Mesh, victim: Node, source: Node) -> bytes:
    """Return a vote request of another member, in a much higher term."""
    body = messages.RequestVote(last_index=1 << 30, last_term=victim.replica.term)
    sender, life, here = source.replica.node_id, source.meta.incarnation, victim.meta.incarnation
    cluster = messages.cluster_number(CLUSTER)
    return messages.encode(
        messages.Envelope(messages.PROTOCOL, cluster, sender, life, here, victim.replica.term + 50, 0, 0, 0, 0, 0, body)
    )


def test_member_cannot_vote_as_another_member(mesh: Mesh) -> None:
    """A key that was stolen from one member is worth the vote of that one."""
    victim = mesh.elect()
    thief, other = (node for node in mesh.nodes if node is not victim)
    mesh.run_until(lambda: all(map(victim.transport.is_connected, (thief.replica.node_id, other.replica.node_id))))
    term, own = victim.replica.term, PAIRS[thief.replica.node_id]
    outsider = Outsider(mesh, victim, own, PAIRS[victim.replica.node_id].public)
    outsider.send(forged(mesh, victim, other))
    mesh.run_until(lambda: victim.transport.dropped["under a key that is not the sender's"])
    assert victim.replica.term == term
    # With its own id the message is accepted.
    outsider.send(forged(mesh, victim, thief))
    mesh.run_until(lambda: victim.replica.term >= term + 50)
    outsider.close()
    mesh.commit(entry(1))


# Key files and the configuration.


def config_of(tmp_path: Path, **changes: object) -> Config:
    nodes = tuple(
        NodeConfig(id=node, port=7000 + 10 * node, public_keys=(pair.public,)) for node, pair in PAIRS.items()
    )
    return Config(nodes=nodes, data_dir=str(tmp_path))


def test_key_file_is_written_once_with_owner_only_mode(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = config.secret_key_path(1)
    write(path, PAIRS[1], "node 1")
    assert path.stat().st_mode & 0o777 == 0o600
    found = keys.of_node(config, 1)
    assert found is not None
    assert found.own == PAIRS[1]
    assert found.peers == {2: (PAIRS[2].public,), 3: (PAIRS[3].public,)}
    with pytest.raises(KeysError, match="the key exists already"):
        write(path, PAIRS[2], "node 1")
    assert read(path) == PAIRS[1]


def test_key_file_fault_is_reported(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = config.secret_key_path(1)
    with pytest.raises(KeysError, match="found no file; see smrx cluster keygen"):
        keys.of_node(config, 1)
    write(path, PAIRS[2], "node 1")
    with pytest.raises(KeysError, match="expected the key of node 1"):
        keys.of_node(config, 1)
    path.chmod(0o644)
    with pytest.raises(KeysError, match="found mode 0644"):
        keys.of_node(config, 1)
    for text, said in (
        ("public = 1", "40 characters of Z85"),
        ("what", "the key file is not valid TOML"),
        ("", "40 characters of Z85"),
        ("a = " + "[" * 100_000, "the key file is not valid TOML"),
        ("a = " + "9" * 5000, "the key file is not valid TOML"),
        (f'public = "{PAIRS[1].public}"\nsecret = "{PAIRS[2].secret}"', "halves of two"),
    ):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(KeysError, match=said):
            keys.of_node(config, 1)


def test_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.key"
    write(path, generate(), "node 1")
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeysError, match="expected a file of this user or of root"):
        read(path)


def test_key_file_with_byte_order_mark_or_crlf_is_read(tmp_path: Path) -> None:
    path = tmp_path / "curve.key"
    write(path, PAIRS[1], "node 1")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(path) == PAIRS[1]


def test_directory_and_binary_file_are_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="cannot read the key file: Is a directory"):
        read(tmp_path)
    path = tmp_path / "curve.key"
    path.write_bytes(bytes(range(128, 256)))
    path.chmod(0o600)
    with pytest.raises(KeysError, match="the key file is not UTF-8 text"):
        read(path)


def test_configuration_with_keys_round_trips(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = tmp_path / "cluster.toml"
    path.write_text(dump(config))
    assert load(path) == config
    assert load(path).curve
    assert not Config().curve


def test_reachable_nodes_need_keys() -> None:
    exposed = {"nodes": [{"id": 1, "port": 7110, "host": "10.0.0.5"}, {"id": 2, "port": 7120}]}
    with pytest.raises(ConfigError, match=r"node 1, 2 has no key, .* reach node 1 at 10\.0\.0\.5"):
        parse(exposed, "file")
    assert parse(exposed, "file", allow_missing_keys=True).nodes[0].host == "10.0.0.5"


@pytest.mark.parametrize(
    ("keys_of", "said"),
    [
        ({1: [PAIRS[1].public]}, "node 2 has no key; give keys to all nodes or to none"),
        ({1: [PAIRS[1].public], 2: [PAIRS[1].public]}, "is used by node 1 and by node 2"),
        ({1: ["short"], 2: [PAIRS[2].public]}, "public_keys"),
    ],
)
def test_keys_that_do_not_match_are_refused(keys_of: dict[int, list[str]], said: str) -> None:
    nodes = [{"id": node, "port": 7100 + 10 * node, "public_keys": keys_of.get(node, [])} for node in (1, 2)]
    with pytest.raises(ConfigError, match=said):
        parse({"nodes": nodes}, "file")

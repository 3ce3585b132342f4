"""smrx cluster keygen: what it writes, and what it does not change."""

from pathlib import Path

import pytest

from smrx import cli
from smrx.cli.exit_codes import Exit
from smrx.config import load

FILE = """# our cluster
cluster = "east"
data_dir = "{data}"

[[nodes]]
port = 7110   # raft
id = 1
host = "10.0.0.1"

[[nodes]]
id = 2
host = "10.0.0.2"
port = 7110
# the end
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(FILE.format(data=tmp_path / "data"))
    return path


def keygen(file: Path | None, *arguments: str) -> int:
    config = [] if file is None else ["--config", str(file)]
    return cli.run([*config, "cluster", "keygen", *arguments])


def test_keys_are_generated_for_all_nodes_and_the_rest_of_the_file_stays(file: Path) -> None:
    before = file.read_text().splitlines()
    assert keygen(file) == Exit.OK
    after = file.read_text().splitlines()
    added = ("public_keys", "venue_keys")
    assert [line for line in after if not line.startswith(added)] == before
    # Outside of every table.
    assert after[after.index('data_dir = "' + str(file.parent / "data") + '"') + 1].startswith("venue_keys")
    config = load(file)
    for node in config.nodes:
        secret = config.secret_key_path(node.id)
        assert node.public_keys[0] in secret.read_text()
        assert secret.stat().st_mode & 0o777 == 0o600


def test_keys_are_generated_for_one_node_at_a_time(file: Path) -> None:
    assert keygen(file, "--node", "2") == Exit.OK
    assert [len(node.public_keys) for node in load(file, allow_missing_keys=True).nodes] == [0, 1]
    assert keygen(file, "--node", "1") == Exit.OK
    assert [len(node.public_keys) for node in load(file).nodes] == [1, 1]


def test_rotated_key_follows_the_first(file: Path) -> None:
    keygen(file)
    first = load(file).node(1).public_keys
    assert keygen(file, "--rotate", "--node", "1") == Exit.OK
    config = load(file)
    assert config.node(1).public_keys[:1] == first
    assert len(config.node(1).public_keys) == 2
    following = config.secret_key_path(1).with_name("curve.key.next")
    assert config.node(1).public_keys[1] in following.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rotate"], "node 1 has no key yet"),
        (["--node", "9"], "its nodes are 1, 2"),
    ],
)
def test_invalid_request_is_refused_and_changes_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = file.read_text()
    assert keygen(file, *arguments) == Exit.USAGE
    assert message in capsys.readouterr().err
    assert file.read_text() == before
    assert not (file.parent / "data").exists()


def test_existing_keys_are_not_overwritten(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keygen(file)
    before = file.read_text()
    assert keygen(file) == Exit.USAGE
    assert "--rotate generates another" in capsys.readouterr().err
    assert file.read_text() == before


def test_keygen_without_cluster_file_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SMRX_CONFIG", raising=False)
    assert keygen(None) == Exit.USAGE
    assert "give one with --config" in capsys.readouterr().err


def test_byte_order_mark_and_crlf_of_the_cluster_file_stay(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default data_dir is relative.
    monkeypatch.chdir(tmp_path)
    # The first line is the heading that keygen looks for, after the mark.
    key = tmp_path / "one.key"
    text = f'[[nodes]]\nid = 1\nport = 7110\nsecret_key_file = "{key}"\n'
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert keygen(file) == Exit.OK
    data = file.read_bytes()
    config = load(file)
    (public,), (venue,) = config.node(1).public_keys, config.venue_keys
    changed = f'venue_keys = ["{venue}"]\n' + text.replace("id = 1\n", f'id = 1\npublic_keys = ["{public}"]\n')
    assert data == b"\xef\xbb\xbf" + changed.replace("\n", "\r\n").encode()

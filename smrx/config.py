"""Configuration: TOML in, validated and typed structs out. Every error names file, key, what was expected and found.

With no file at all the configuration is a three-node cluster on loopback.
"""

import json
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

#: Node i of the default cluster listens on 7100 + 10 i and the five ports after it.
DEFAULT_BASE_PORT: Final = 7100
PORTS_PER_NODE: Final = 10

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
NodeId = Annotated[int, msgspec.Meta(ge=1, le=255)]
#: 32 bytes in Z85 (ZeroMQ RFC 32).
PublicKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class ConfigError(Exception):
    """The operator's configuration cannot be used; the message is one sentence for the operator."""


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where one member listens. `port` is the raft port; the others follow it unless named."""

    id: NodeId
    port: Port
    host: str = "127.0.0.1"
    orders_port: Port | None = None
    events_port: Port | None = None
    retransmit_port: Port | None = None
    admin_port: Port | None = None
    metrics_port: Port | None = None
    #: The CURVE keys by which the others know this node, the usual one first; none: its links are not protected.
    public_keys: tuple[PublicKey, ...] = ()
    #: Where this node finds its secret key; in its data directory unless named.
    secret_key_file: str | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether nobody on another machine can reach the node."""
        return self.host in ("localhost", "::1", "[::1]") or self.host.startswith("127.")

    def _address(self, named: int | None, offset: int) -> str:
        return f"tcp://{self.host}:{self.port + offset if named is None else named}"

    @property
    def raft_address(self) -> str:
        return self._address(self.port, 0)

    @property
    def orders_address(self) -> str:
        return self._address(self.orders_port, 1)

    @property
    def events_address(self) -> str:
        return self._address(self.events_port, 2)

    @property
    def retransmit_address(self) -> str:
        return self._address(self.retransmit_port, 3)

    @property
    def admin_address(self) -> str:
        return self._address(self.admin_port, 4)

    @property
    def metrics_bind(self) -> tuple[str, int]:
        return self.host, self.port + 5 if self.metrics_port is None else self.metrics_port


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Milliseconds. An election takes between min and max after the last heartbeat."""

    heartbeat_ms: PositiveInt = 50
    election_min_ms: PositiveInt = 600
    election_max_ms: PositiveInt = 1200
    #: A leader that hears no majority for this long steps down; below election_min_ms, so two never serve at once.
    leader_fallback_ms: PositiveInt = 450
    #: A session that asked for cancel-on-disconnect has its orders cancelled when the leader has not heard of it for so
    #: long; its client lets nodes hear of it four times as often.
    disconnect_ms: Annotated[int, msgspec.Meta(ge=100)] = 5000


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds on memory."""

    #: Events a node keeps for retransmission (128 bytes each).
    event_ring: PositiveInt = 1 << 20
    #: Outcomes a node keeps to answer a repeated request in full (64 bytes each).
    outcome_ring: PositiveInt = 1 << 18
    #: Raft entries after which the log is compacted into a snapshot.
    compaction_entries: PositiveInt = 50_000
    #: Commands waiting for a majority before new ones are refused as OVERLOADED.
    pending_commands: PositiveInt = 1 << 18
    #: With durability on disk: a snapshot after so many commands, or after so many minutes with at least one.
    snapshot_commands: PositiveInt = 1_000_000
    snapshot_minutes: PositiveInt = 10


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where settled trades go, and how. Which fields count depends on the kind; another one is an error."""

    kind: Literal["csv", "lmdb", "postgresql", "parquet"]
    #: csv: a .csv file, or the directory of settled_trades.csv. lmdb, parquet: a directory.
    path: str | None = None
    #: postgresql: a libpq connection string. A password is better kept in ~/.pgpass or PGPASSWORD than in this file.
    dsn: str | None = None
    #: postgresql: the schema that holds the tables; made if it is not there.
    schema: str | None = None
    #: csv: a new file once the current one has so many bytes.
    rotate_bytes: PositiveInt | None = None
    #: csv, parquet: a new file for each day (UTC) of engine time.
    rotate_daily: bool | None = None
    #: parquet: a new file after so many trades.
    rotate_trades: PositiveInt | None = None


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settlement, outside the cluster."""

    #: Where settlement keeps its checkpoint and books; relative paths of sinks begin here.
    directory: str = "settled"
    #: A command that is run for each alarm.
    hook: str | None = None
    #: Where settlement serves its metrics on loopback; it serves none if there is no port.
    metrics_port: Port | None = None
    sinks: tuple[SinkConfig, ...] = (SinkConfig(kind="csv"),)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One cluster, as every member and every client reads it."""

    cluster: str = "local"
    nodes: tuple[NodeConfig, ...] = tuple(
        NodeConfig(id=i, port=DEFAULT_BASE_PORT + PORTS_PER_NODE * i) for i in (1, 2, 3)
    )
    #: Where members keep term, vote and identity; one folder a node below it.
    data_dir: str = "data"
    #: "memory" (the default): commands live in the memory of a majority. "disk": each node also writes them to its
    #: journal, so that all nodes may die at once.
    durability: Literal["memory", "disk"] = "memory"
    #: Addresses of machines from which operators may change members, leadership and the like, beside a node's own.
    admin_from: tuple[str, ...] = ()
    timing: Timing = Timing()
    limits: Limits = Limits()
    settlement: Settlement = Settlement()

    def node(self, node_id: int) -> NodeConfig:
        """Return a member; raises ConfigError for an id that is not in the cluster."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        known = ", ".join(str(node.id) for node in self.nodes)
        raise ConfigError(f"node id: expected one of {known} (cluster {self.cluster!r}), found {node_id}")

    @property
    def curve(self) -> bool:
        """Whether the links between members are encrypted and authenticated."""
        return any(node.public_keys for node in self.nodes)

    def secret_key_path(self, node_id: int) -> Path:
        """Where a member's secret key is, on its own machine."""
        named = self.node(node_id).secret_key_file
        return self.node_dir(node_id) / "curve.key" if named is None else Path(named).expanduser()

    def node_dir(self, node_id: int) -> Path:
        """The data directory of one member."""
        return Path(self.data_dir).expanduser() / f"node-{node_id}"


def load(path: str | Path | None = None, *, keyless: bool = False) -> Config:
    """Return the configuration in the TOML file `path`, or the default; raises ConfigError.

    With `keyless`, nodes may lack the keys that their addresses ask for: they are about to be made.
    """
    if path is None:
        return Config()
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable TOML file, found: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected UTF-8 text, found other bytes") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from None
    return parse(raw, str(path), keyless=keyless)


def parse(raw: dict[str, Any], source: str, *, keyless: bool = False) -> Config:
    """Return a validated configuration; `source` names it in errors. Raises ConfigError."""
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}".replace(" - at `$.", " - at `")) from None
    _check(config, source)
    _check_keys(config, source, keyless)
    return config


def dump(config: Config) -> str:
    """Return the TOML text of a configuration; load() of it gives an equal one."""
    lines = [
        f"cluster = {_quoted(config.cluster)}",
        f"data_dir = {_quoted(config.data_dir)}",
        f"durability = {_quoted(config.durability)}",
        *([f"admin_from = {_value(config.admin_from)}"] if config.admin_from else []),
    ]
    for section in ("timing", "limits", "settlement"):
        lines += ["", f"[{section}]", *_assignments(getattr(config, section))]
    for heading, parts in (("nodes", config.nodes), ("settlement.sinks", config.settlement.sinks)):
        for part in parts:
            lines += ["", f"[[{heading}]]", *_assignments(part)]
    return "\n".join(lines) + "\n"


def _assignments(part: msgspec.Struct) -> list[str]:
    """The lines of a table: what is not there is left out, what is a table is written elsewhere."""
    fields = msgspec.to_builtins(part).items()
    return [f"{key} = {_value(value)}" for key, value in fields if isinstance(value, str | int) or _texts(value)]


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


#: Fields that a kind of sink must have, and those it may have.
_SINK_FIELDS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "csv": (set(), {"path", "rotate_bytes", "rotate_daily"}),
    "lmdb": ({"path"}, set()),
    "postgresql": ({"dsn"}, {"schema"}),
    "parquet": ({"path"}, {"rotate_trades", "rotate_daily"}),
}


def _check_sinks(config: Config, source: str) -> None:
    sinks = config.settlement.sinks
    if not sinks:
        raise ConfigError(f"{source}: settlement.sinks: expected at least one, found none")
    places: dict[tuple[str, str | None, str | None], int] = {}
    for number, sink in enumerate(sinks, 1):
        where = f"{source}: settlement.sinks, {sink.kind} (number {number})"
        required, optional = _SINK_FIELDS[sink.kind]
        given = {key for key, value in msgspec.to_builtins(sink).items() if value is not None} - {"kind"}
        for key in sorted(required - given):
            raise ConfigError(f"{where}: expected {key}, found none")
        for key in sorted(given - required - optional):
            raise ConfigError(f"{where}: {key} means nothing to it; expected {', '.join(sorted(required | optional))}")
        place = (sink.kind, sink.path or sink.dsn, sink.schema)
        if place in places:
            raise ConfigError(f"{where}: expected each place once, found that of number {places[place]} again")
        places[place] = number


def _check(config: Config, source: str) -> None:
    _check_sinks(config, source)
    for text in config.admin_from:
        try:
            ip_address(text)
        except ValueError:
            raise ConfigError(f"{source}: admin_from: expected numeric IP addresses, found {text!r}") from None
    if not config.nodes:
        raise ConfigError(f"{source}: nodes: expected at least one, found none")
    ids = [node.id for node in config.nodes]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{source}: nodes: expected different ids, found {ids}")
    addresses: dict[str, int] = {}
    for node in config.nodes:
        host, metrics = node.metrics_bind
        for address in (
            node.raft_address,
            node.orders_address,
            node.events_address,
            node.retransmit_address,
            node.admin_address,
            f"tcp://{host}:{metrics}",
        ):
            port = int(address.rsplit(":", 1)[1])
            if port > 65535:
                raise ConfigError(f"{source}: node {node.id}: expected ports up to 65535, found {port}")
            if address in addresses:
                raise ConfigError(
                    f"{source}: nodes: expected each address once, found {address} for "
                    f"node {addresses[address]} and node {node.id}"
                )
            addresses[address] = node.id
    timing = config.timing
    if not timing.heartbeat_ms * 3 < timing.election_min_ms < timing.election_max_ms:
        raise ConfigError(
            f"{source}: timing: expected 3 x heartbeat_ms < election_min_ms < election_max_ms, found "
            f"{timing.heartbeat_ms}, {timing.election_min_ms}, {timing.election_max_ms}"
        )
    if not timing.heartbeat_ms < timing.leader_fallback_ms < timing.election_min_ms:
        raise ConfigError(
            f"{source}: timing.leader_fallback_ms: expected between heartbeat_ms and election_min_ms "
            f"({timing.heartbeat_ms} to {timing.election_min_ms}), found {timing.leader_fallback_ms}"
        )


def _check_keys(config: Config, source: str, keyless: bool) -> None:
    """Members that other machines can reach know each other by keys; a key belongs to one member."""
    owners: dict[str, int] = {}
    for node in config.nodes:
        for key in node.public_keys:
            if key in owners:
                raise ConfigError(
                    f"{source}: public_keys: expected each key once, found {key} for node {owners[key]} and "
                    f"node {node.id}"
                )
            owners[key] = node.id
    without = [node for node in config.nodes if not node.public_keys]
    if keyless or not without:
        return
    exposed = next((node for node in config.nodes if not node.on_loopback), None)
    names = ", ".join(str(node.id) for node in without)
    if exposed is not None:
        raise ConfigError(
            f"{source}: public_keys: expected keys for every node, because other machines can reach node {exposed.id} "
            f"at {exposed.host}, found none for node {names}; smrx cluster keygen makes them"
        )
    if config.curve:
        raise ConfigError(
            f"{source}: public_keys: expected keys for every node or for none, found none for node {names}"
        )

"""Load and validate the configuration of a cluster from TOML. Every error names the file and the key.

Without a file the configuration is a three-node cluster on loopback.
"""

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from smrx import toml_file

#: Node i of the default cluster listens on 7100 + 10 i and the five ports after it.
DEFAULT_BASE_PORT: Final = 7100
PORTS_PER_NODE: Final = 10

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
NodeId = Annotated[int, msgspec.Meta(ge=1, le=255)]
#: 32 bytes in Z85 (ZeroMQ RFC 32).
PublicKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
_TCP: Final = "tcp://"
#: What begins the address of order entry over TCP. One with tcp:// is that of a ZeroMQ socket.
ORDERS_SCHEME: Final = "smrx://"
#: A host name; addresses are parsed.
_HOST_NAME: Final = re.compile(r"[0-9A-Za-z_.\-]+")
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
#: Commands a second; at least as many as fit a frame, or a full frame would never pass.
Rate = Annotated[int, msgspec.Meta(ge=4096, le=1_000_000_000)]


class ConfigError(Exception):
    """The configuration is invalid; the message is for the operator."""


def host_fault(host: str) -> str | None:
    """Return what is wrong with a host, None if it is a name or an IP address."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _HOST_NAME.fullmatch(host):
        return None
    try:
        ip_address(bare)
    except ValueError:
        return f"expected a host name or an IP address, found {host!r}"
    return None


def socket_address(address: str) -> str:
    """Return the tcp:// address of the socket behind an address of order entry over TCP."""
    return _TCP + address.removeprefix(ORDERS_SCHEME)


def _bracketed(host: str) -> str:
    """Return a host as it stands in an address: an IPv6 address in brackets, anything else as it is."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can reach a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The addresses and keys of one node. `port` is for Raft; the other ports follow it unless they are set."""

    id: NodeId
    port: Port
    host: str = "127.0.0.1"
    orders_port: Port | None = None
    #: Order entry over plain TCP, or TLS with keys; `orders_port` is ZeroMQ's.
    orders_tcp_port: Port | None = None
    events_port: Port | None = None
    admin_port: Port | None = None
    metrics_port: Port | None = None
    #: CURVE public keys of this node, the current one first. Without keys its links are not encrypted.
    public_keys: tuple[PublicKey, ...] = ()
    #: Path of the secret key of this node; curve.key in its data directory unless set.
    secret_key_file: str | None = None

    @property
    def on_loopback(self) -> bool:
        """Whether the node is reachable only from its own machine."""
        return is_loopback(self.bare_host)

    @property
    def bare_host(self) -> str:
        """The host without the brackets that an IPv6 address may have."""
        return self.host[1:-1] if self.host.startswith("[") else self.host

    def _address(self, port: int | None, offset: int) -> str:
        return f"{_TCP}{_bracketed(self.bare_host)}:{self.port + offset if port is None else port}"

    @property
    def raft_address(self) -> str:
        return self._address(self.port, 0)

    @property
    def orders_address(self) -> str:
        return self._address(self.orders_port, 1)

    @property
    def orders_tcp_address(self) -> str:
        """The address of order entry over TCP, as clients give it: with a scheme that tells it from ZeroMQ's."""
        return ORDERS_SCHEME + self._address(self.orders_tcp_port, 3).removeprefix(_TCP)

    @property
    def events_address(self) -> str:
        return self._address(self.events_port, 2)

    @property
    def admin_address(self) -> str:
        return self._address(self.admin_port, 4)

    @property
    def metrics_bind(self) -> tuple[str, int]:
        return self.bare_host, self.port + 5 if self.metrics_port is None else self.metrics_port

    @property
    def metrics_address(self) -> str:
        return self._address(self.metrics_port, 5)


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times in milliseconds. A follower campaigns election_min_ms to election_max_ms after the last heartbeat."""

    heartbeat_ms: PositiveInt = 50
    election_min_ms: PositiveInt = 600
    election_max_ms: PositiveInt = 1200
    #: A leader without answers from a majority for this long steps down. It must be below election_min_ms, so that two
    #: leaders never serve at the same time.
    leader_fallback_ms: PositiveInt = 450
    #: A time stamp differs by at most this from the highest time that the clocks of a majority have reached, and a node
    #: whose clock differs by more does not lead. At least leader_fallback_ms: a clock is known as late as the message
    #: that reports it.
    max_clock_skew_ms: Annotated[int, msgspec.Meta(ge=1, le=3_600_000)] = 1000
    #: The leader cancels the orders of a session with cancel-on-disconnect after this time without a message from it.
    #: The client sends a message at least four times in this time.
    disconnect_ms: Annotated[int, msgspec.Meta(ge=100)] = 5000
    #: Microseconds for which a node looks for messages again and again before it sleeps. A lone order is answered
    #: sooner, but each node takes a whole processor; only for machines with more processors than busy processes.
    spin_us: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits on the memory of a node and on what each client may ask of it, and when it takes snapshots."""

    #: Events kept for retransmission, 128 bytes each.
    event_ring: PositiveInt = 1 << 20
    #: Subscribers of the event feed at once, up to 2 MiB each; more are refused.
    subscribers: PositiveInt = 64
    #: Raft entries after which the log is compacted into a snapshot.
    compaction_entries: PositiveInt = 50_000
    #: Uncommitted commands after which new ones are refused as OVERLOADED.
    pending_commands: PositiveInt = 1 << 18
    #: With durability = "disk": a snapshot after this many commands, or after this many minutes with at least one.
    snapshot_commands: PositiveInt = 1_000_000
    snapshot_minutes: PositiveInt = 10
    #: Commands a second of one session, and of one account: more are refused as LIMITED. A second's worth may come at
    #: once. They hold for credentials: a node without keys knows no senders, and the keys of the cluster file are the
    #: venue's. By default ten accounts together may use about as much as a cluster can do, or one gateway.
    session_commands_per_second: Rate = 1_000_000
    account_commands_per_second: Rate = 100_000
    #: Open sessions of one account.
    account_sessions: PositiveInt = 10_000
    #: The last answers that a session may ask the exchange to keep, 64 bytes each.
    session_answers: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1 << 16
    #: Commands of one connection that are not answered yet, and the bytes of those commands.
    connection_commands: Annotated[int, msgspec.Meta(ge=4096)] = 1 << 17
    connection_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 32 << 20


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sink for settled trades. Which fields are allowed depends on the kind."""

    kind: Literal["csv", "lmdb", "postgresql", "parquet"]
    #: csv: a .csv file, or the directory of settled_trades.csv. lmdb, parquet: a directory.
    path: str | None = None
    #: postgresql: a libpq connection string. Keep the password in ~/.pgpass or PGPASSWORD, not in this file.
    dsn: str | None = None
    #: postgresql: the schema of the tables; created if it does not exist.
    schema: str | None = None
    #: csv: start a new file when the current one has this many bytes.
    rotate_bytes: PositiveInt | None = None
    #: csv, parquet: start a new file for each day (UTC) of engine time.
    rotate_daily: bool | None = None
    #: parquet: start a new file after this many trades.
    rotate_trades: PositiveInt | None = None


class GatewayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One gateway, `smrx gateway --name NAME`: where it listens, its key, and what each of its clients may use."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_.\-]{1,32}$")] = "gateway"
    host: str = "127.0.0.1"
    #: TCP port of the native protocol.
    port: Port = DEFAULT_BASE_PORT - PORTS_PER_NODE
    #: Port for metrics and health over HTTP, at the same host; none if not set.
    metrics_port: Port | None = None
    #: CURVE public keys of the gateway, by which its clients know it; and the path of its secret key. Both are needed
    #: on a cluster whose nodes have keys: a credential with GATEWAY, TRADE and READ for all accounts.
    public_keys: tuple[PublicKey, ...] = ()
    secret_key_file: str | None = None
    #: Connections at once; fewer if the process may not open as many descriptors.
    connections: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1 << 14
    #: Commands of one client without an answer; beyond them its connection is not read.
    commands_under_way: Annotated[int, msgspec.Meta(ge=1, le=1 << 15)] = 1024
    #: Commands a second of one client, a second's worth at once; beyond them it is not read. If not set there is no
    #: limit, or on a cluster with keys the lower one of a session and of an account.
    commands_per_second: Rate | None = None
    #: Time for a login, and silence after which a client is taken for gone.
    login_ms: Annotated[int, msgspec.Meta(ge=100)] = 5_000
    silence_ms: Annotated[int, msgspec.Meta(ge=2_000)] = 15_000

    @property
    def bare_host(self) -> str:
        """The host without the brackets that an IPv6 address may have."""
        return self.host[1:-1] if self.host.startswith("[") else self.host

    @property
    def address(self) -> str:
        """The address of the native protocol."""
        return f"tcp://{_bracketed(self.bare_host)}:{self.port}"

    @property
    def metrics_address(self) -> str | None:
        """The address of metrics and health, None if it has none."""
        return None if self.metrics_port is None else f"tcp://{_bracketed(self.bare_host)}:{self.metrics_port}"

    @property
    def on_loopback(self) -> bool:
        """Whether it is reachable only from its own machine."""
        return is_loopback(self.bare_host)


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the verifier `smrx settle run`, which runs outside the cluster."""

    #: Directory of the checkpoint and the books; relative paths of sinks start here.
    directory: str = "settled"
    #: A command to run for each alarm.
    hook: str | None = None
    #: Port for metrics on loopback; no metrics if not set.
    metrics_port: Port | None = None
    #: Directory of the order history, relative to `directory`; no history if not set. It begins with event 1.
    history: str | None = None
    sinks: tuple[SinkConfig, ...] = (SinkConfig(kind="csv"),)

    @property
    def history_path(self) -> Path | None:
        """The directory of the order history, None if there is none."""
        return None if self.history is None else Path(self.directory).expanduser() / Path(self.history).expanduser()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of one cluster; members and clients read the same file."""

    cluster: str = "local"
    nodes: tuple[NodeConfig, ...] = tuple(
        NodeConfig(id=i, port=DEFAULT_BASE_PORT + PORTS_PER_NODE * i) for i in (1, 2, 3)
    )
    #: Directory of term, vote, identity, journal and snapshots, with one folder for each node.
    data_dir: str = "data"
    #: "memory": commands are in the memory of a majority. "disk": each node also writes them to its journal, so that no
    #: command is lost if all nodes die at once.
    durability: Literal["memory", "disk"] = "memory"
    #: CURVE public keys of the venue's first administrators. They may do everything, also before the exchange has
    #: credentials. For clusters whose nodes have keys.
    venue_keys: tuple[PublicKey, ...] = ()
    timing: Timing = Timing()
    limits: Limits = Limits()
    settlement: Settlement = Settlement()
    #: Processes between clients and the leader; none has to run.
    gateways: tuple[GatewayConfig, ...] = (GatewayConfig(),)

    def gateway(self, name: str | None = None) -> GatewayConfig:
        """Return the gateway with this name, the first without a name; raises ConfigError if there is none."""
        for gateway in self.gateways:
            if name in (None, gateway.name):
                return gateway
        known = ", ".join(gateway.name for gateway in self.gateways) or "none"
        raise ConfigError(f"cluster {self.cluster!r} has no gateway {name or ''!r}; its gateways are {known}")

    def node(self, node_id: int) -> NodeConfig:
        """Return the node with this id; raises ConfigError if there is none."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        known = ", ".join(str(node.id) for node in self.nodes)
        raise ConfigError(f"cluster {self.cluster!r} has no node {node_id}; its nodes are {known}")

    @property
    def curve(self) -> bool:
        """Whether connections between members and of clients are encrypted and authenticated."""
        return any(node.public_keys for node in self.nodes)

    def secret_key_path(self, node_id: int) -> Path:
        """Return the path of the secret key of a node, on its own machine."""
        named = self.node(node_id).secret_key_file
        return self.node_dir(node_id) / "curve.key" if named is None else Path(named).expanduser()

    @property
    def venue_key_path(self) -> Path:
        """The path of the key with which the tools of an operator connect, on the operator's machine."""
        return Path(self.data_dir).expanduser() / "venue.key"

    def admin_token_path(self, node_id: int) -> Path:
        """Return the path of the token that administrative requests carry to a node without keys."""
        return self.node_dir(node_id) / "admin.token"

    def ring_path(self, node_id: int) -> Path:
        """Return the path of the Unix socket for clients that use rings in shared memory."""
        return self.node_dir(node_id) / "orders.ring"

    def node_dir(self, node_id: int) -> Path:
        """Return the data directory of a node."""
        return Path(self.data_dir).expanduser() / f"node-{node_id}"


def load(path: str | Path | None = None, *, allow_missing_keys: bool = False) -> Config:
    """Return the configuration in the TOML file `path`, or the default without one; raises ConfigError.

    With `allow_missing_keys`, required keys may be missing, because the caller is about to generate them.
    """
    if path is None:
        return Config()
    try:
        raw = toml_file.read(path, "the configuration")
    except toml_file.TomlFileError as error:
        raise ConfigError(str(error)) from None
    return parse(raw, str(path), allow_missing_keys=allow_missing_keys)


def parse(raw: dict[str, Any], source: str, *, allow_missing_keys: bool = False) -> Config:
    """Validate a TOML document and return the configuration; `source` names it in errors. Raises ConfigError.

    The `retransmit_port` of a node is ignored: older versions had a socket there.
    """
    if "admin_from" in raw:
        raise ConfigError(
            f"{source}: admin_from: no longer allowed, as no address proves who sends a request; remove it and give "
            "operators a key (`smrx cluster keygen`), or run their commands where they can read admin.token"
        )
    nodes = raw.get("nodes")
    if isinstance(nodes, list):
        raw = raw | {"nodes": [_without(node, "retransmit_port") for node in nodes]}
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_plain(str(error))}") from None
    _check(config, source)
    _check_keys(config, source, allow_missing_keys)
    return config


def _without(table: Any, key: str) -> Any:
    return {name: value for name, value in table.items() if name != key} if isinstance(table, dict) else table


def _plain(message: str) -> str:
    """Return a message of msgspec with the key first: "nodes[0].port: expected int, got str"."""
    problem, _, key = message.replace("`", "").partition(" - at $")
    problem = problem.removeprefix("Object ")
    return f"{f'{key[1:]}: ' if key else ''}{problem[:1].lower()}{problem[1:]}"


def dump(config: Config) -> str:
    """Return a configuration as TOML; load() of the text gives an equal configuration."""
    lines = [
        f"cluster = {_quoted(config.cluster)}",
        f"data_dir = {_quoted(config.data_dir)}",
        f"durability = {_quoted(config.durability)}",
        *([f"venue_keys = {_value(config.venue_keys)}"] if config.venue_keys else []),
    ]
    for section in ("timing", "limits", "settlement"):
        lines += ["", f"[{section}]", *_assignments(getattr(config, section))]
    for heading, parts in (
        ("nodes", config.nodes),
        ("gateways", config.gateways),
        ("settlement.sinks", config.settlement.sinks),
    ):
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
    # A JSON string is a TOML string, except that TOML requires DEL to be escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


#: Required and optional fields of each kind of sink.
_SINK_FIELDS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "csv": (set(), {"path", "rotate_bytes", "rotate_daily"}),
    "lmdb": ({"path"}, set()),
    "postgresql": ({"dsn"}, {"schema"}),
    "parquet": ({"path"}, {"rotate_trades", "rotate_daily"}),
}


def _check_sinks(config: Config, source: str) -> None:
    sinks = config.settlement.sinks
    if not sinks:
        raise ConfigError(f"{source}: settlement.sinks: at least one sink is required")
    places: dict[tuple[str, str | None, str | None], int] = {}
    for number, sink in enumerate(sinks, 1):
        where = f"{source}: settlement.sinks, {sink.kind} (number {number})"
        required, optional = _SINK_FIELDS[sink.kind]
        given = {key for key, value in msgspec.to_builtins(sink).items() if value is not None} - {"kind"}
        for key in sorted(required - given):
            raise ConfigError(f"{where}: {key} is missing")
        for key in sorted(given - required - optional):
            raise ConfigError(f"{where}: unknown field {key}; allowed: {', '.join(sorted(required | optional))}")
        place = (sink.kind, sink.path or sink.dsn, sink.schema)
        if place in places:
            raise ConfigError(f"{where}: the same destination as number {places[place]}")
        places[place] = number


def _check(config: Config, source: str) -> None:
    _check_sinks(config, source)
    if not config.nodes:
        raise ConfigError(f"{source}: nodes: at least one node is required")
    ids = [node.id for node in config.nodes]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{source}: nodes: ids must be unique, found {ids}")
    addresses: dict[str, int] = {}
    for node in config.nodes:
        fault = host_fault(node.host)
        if fault is not None:
            raise ConfigError(f"{source}: node {node.id}: host: {fault}")
        for address in (
            node.raft_address,
            node.orders_address,
            socket_address(node.orders_tcp_address),
            node.events_address,
            node.admin_address,
            node.metrics_address,
        ):
            port = int(address.rsplit(":", 1)[1])
            if port > 65535:
                raise ConfigError(f"{source}: node {node.id}: port {port} is above 65535")
            if address in addresses:
                raise ConfigError(
                    f"{source}: nodes: address {address} is used by node {addresses[address]} and by node {node.id}"
                )
            addresses[address] = node.id
    if config.gateways != Config().gateways:
        _check_gateways(config, source, addresses)
    timing = config.timing
    if not timing.heartbeat_ms * 3 < timing.election_min_ms < timing.election_max_ms:
        raise ConfigError(
            f"{source}: timing: expected 3 x heartbeat_ms < election_min_ms < election_max_ms, found "
            f"{timing.heartbeat_ms}, {timing.election_min_ms}, {timing.election_max_ms}"
        )
    if not timing.heartbeat_ms < timing.leader_fallback_ms < timing.election_min_ms:
        raise ConfigError(
            f"{source}: timing.leader_fallback_ms: expected a value between heartbeat_ms ({timing.heartbeat_ms}) and "
            f"election_min_ms ({timing.election_min_ms}), found {timing.leader_fallback_ms}"
        )
    if timing.max_clock_skew_ms < timing.leader_fallback_ms:
        raise ConfigError(
            f"{source}: timing.max_clock_skew_ms: expected at least leader_fallback_ms ({timing.leader_fallback_ms}), "
            f"found {timing.max_clock_skew_ms}"
        )


def _check_gateways(config: Config, source: str, addresses: dict[str, int]) -> None:
    """Check names, addresses and keys of gateways; `addresses`: those of the nodes."""
    names = [gateway.name for gateway in config.gateways]
    taken = dict(addresses)
    for number, gateway in enumerate(config.gateways):
        where = f"{source}: gateway {gateway.name!r}"
        if gateway.name in names[:number]:
            raise ConfigError(f"{source}: gateways: names must be unique, found {gateway.name!r} twice")
        fault = host_fault(gateway.host)
        if fault is not None:
            raise ConfigError(f"{where}: host: {fault}")
        for address in filter(None, (gateway.address, gateway.metrics_address)):
            if address in taken:
                raise ConfigError(f"{where}: address {address} is used already, by a gateway or by a node")
            taken[address] = 0
        if gateway.public_keys and gateway.secret_key_file is None:
            raise ConfigError(f"{where}: secret_key_file is missing; expected the path of the key of {where}")
        if not gateway.on_loopback and not (gateway.public_keys and config.curve):
            raise ConfigError(
                f"{where}: public_keys: the gateway and all nodes need keys, because other machines can reach it at "
                f"{gateway.host}; create one with `smrx key create` and list it with `smrx key add`"
            )


def _check_keys(config: Config, source: str, allow_missing_keys: bool) -> None:
    """Check that each key belongs to one owner, and that nodes reachable from other machines have keys."""
    owners: dict[str, int] = {}
    for node in config.nodes:
        for key in node.public_keys:
            if key in owners:
                raise ConfigError(
                    f"{source}: public_keys: key {key} is used by node {owners[key]} and by node {node.id}"
                )
            owners[key] = node.id
    for key in config.venue_keys:
        if key in owners:
            raise ConfigError(f"{source}: venue_keys: key {key} is that of node {owners[key]}; use one of its own")
    if config.venue_keys and not config.curve and not allow_missing_keys:
        raise ConfigError(f"{source}: venue_keys: no node has public_keys; generate them with `smrx cluster keygen`")
    without = [node for node in config.nodes if not node.public_keys]
    if allow_missing_keys or not without:
        return
    exposed = next((node for node in config.nodes if not node.on_loopback), None)
    names = ", ".join(str(node.id) for node in without)
    if exposed is not None:
        raise ConfigError(
            f"{source}: public_keys: node {names} has no key, but all nodes need one, because other machines can reach "
            f"node {exposed.id} at {exposed.host}; generate keys with `smrx cluster keygen`"
        )
    if config.curve:
        raise ConfigError(f"{source}: public_keys: node {names} has no key; give keys to all nodes or to none")

"""The rules of the tree that a reader relies on: where imports point, what the engine may touch, what is never there.

Every rule is a function from source text to findings, so that the test beside it can feed it a fault and see it caught.
"""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 2 << 20

#: A part of smrx imports itself and parts with a lower number. A part that is not named here is a fault.
LAYERS = {
    "__main__": 11,
    "cli": 10,
    "bench": 9,
    "sim": 9,
    "local": 8,
    "settlement": 7,
    "history": 7,
    "follower": 6,
    "node": 6,
    "gateway": 6,
    "tape": 6,
    "__init__": 6,  # `import smrx` offers the client
    "client": 5,
    "sinks": 5,
    "consensus": 4,
    "feed": 4,
    "compiling": 3,
    "rings": 3,
    "compile_cache": 0,
    "engine": 2,
    "links": 3,
    "client_keys": 2,
    "key_files": 1,
    "wire": 1,
    "config": 0,
    "http_server": 0,
    "toml_file": -1,
}
#: What the engine may use of other parts: the records and the enumerations of the protocol, and their conversions.
ENGINE_SHARES = {
    *("smrx.wire.records", "smrx.wire.codes", "smrx.wire.record_schema"),
    *("smrx.wire.command_list", "smrx.wire.client_order_ids"),
}
#: Parts that check or use the cluster from outside share no code with its inside.
INSIDE = {"node", "consensus"}
OUTSIDE = {"client", "feed", "follower", "gateway", "history", "settlement", "sinks", "tape"}
#: What verifies the engine shares of its code only the helpers that compile a function.
VERIFIERS = {"feed", "follower", "history", "settlement", "sinks"}
ENGINE_HELPERS = {"smrx.engine.kernels.jit"}

ENGINE_IMPORTS = {
    "smrx", "numpy", "numba", "llvmlite", "xxhash", "ctypes", "mmap", "typing", "types", "enum", "collections",
    "functools", "itertools", "importlib", "dataclasses", "operator",
}  # fmt: skip
ENGINE_FORBIDDEN_NAMES = {"open", "print", "input", "float", "complex", "breakpoint", "globals", "__import__"}
ENGINE_FORBIDDEN_ATTRIBUTES = {"float16", "float32", "float64", "double", "random", "default_rng", "fromfile", "tofile"}

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "yaml.load", "np.load", "numpy.load", "os.system"}
PRIVATE_SYNCOBJ = re.compile(r"_SyncObj__|_TCPTransport__|_SyncObjConf__")

# In parts, so that this file does not hold what it looks for.
FORBIDDEN_TEXT = {
    "a path of one machine": re.compile(r"(?<![\w.~/-])/(home|Users|root|work)/[\w.]"),
    "a folder or registry that is not public": re.compile(r"\.lib" r"rary\b|index" r"-url"),
    "work left undone": re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b"),
}


class Source(NamedTuple):
    """One Python file of the project."""

    path: str
    text: str

    @property
    def package(self) -> list[str]:
        """The package that relative imports start from."""
        return self.path.split("/")[:-1]

    @property
    def part(self) -> str:
        """The part of smrx it belongs to: smrx/wire/frames.py is of `wire`, smrx/config.py of `config`."""
        return self.path.split("/")[1].removesuffix(".py")

    @property
    def tree(self) -> ast.Module:
        return parsed(self)


@cache
def parsed(source: Source) -> ast.Module:
    """Parse a file once for all rules."""
    return ast.parse(source.text, source.path)


@cache
def sources(folder: str) -> list[Source]:
    """Every Python file below a folder of the project."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def project_files() -> list[Path]:
    """Every file that belongs to the project: what git knows, or, outside a clone, what is not hidden or generated."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0 and listing.stdout:
        return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    found: list[Path] = []
    for folder, children, names in os.walk(ROOT):
        children[:] = [
            name
            for name in children
            if (name == ".ci" or not name.startswith("."))
            and name not in {"__pycache__", "data", "dist", "build"}
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        ]
        found += [Path(folder) / name for name in names]
    return found


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import; `from smrx import x` and `from . import x` as the module x."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = source.package[: len(source.package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == "smrx" or not node.module:
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def names_called(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every call of a plain or once dotted name: `eval`, `yaml.load`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.lineno, f"{node.func.value.id}.{node.func.attr}"


def wrong_imports(source: Source) -> Iterator[str]:
    """Find imports of a smrx file that point the wrong way."""
    for line, module in imports(source):
        where = f"{source.path}:{line}: imports {module}: "
        top, _, rest = module.partition(".")
        if top in {"cluster", "tests", "scripts"}:
            yield where + "smrx stands without its tools and tests"
        if top != "smrx" or rest == "__version__":
            continue
        part = rest.split(".")[0] or "__init__"
        if source.part not in LAYERS or part not in LAYERS:
            yield where + "a part without a place in LAYERS"
        elif part == source.part:
            continue
        elif LAYERS[part] >= LAYERS[source.part]:
            yield where + f"{source.part} is not above {part}"
        elif source.part in OUTSIDE and part in INSIDE:
            yield where + f"{source.part} is outside the cluster, {part} inside"
        elif source.part in VERIFIERS and part == "engine" and module not in ENGINE_HELPERS:
            yield where + f"{source.part} verifies the engine and may use only its compile helpers"


def module_name(source: Source) -> str:
    """Return the dotted name of a file's module."""
    return source.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, without what only a type checker reads."""
    is_type_checking = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    yield node
    for child in node.orelse if is_type_checking else ast.iter_child_nodes(node):
        yield from runtime_nodes(child)


def runtime_imports(source: Source, modules: set[str]) -> set[str]:
    """Return which of these modules a file imports, at the top or inside of functions."""
    found: set[str] = set()
    for node in runtime_nodes(source.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = source.package[: len(source.package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            names = (f"{base}.{alias.name}" for alias in node.names)
            found.update(name if name in modules else base for name in names)
    return found & modules


def import_circle(files: list[Source]) -> list[str]:
    """Return the modules of an import circle in order, the first one again at the end; empty if there is none."""
    modules = {module_name(source) for source in files}
    graph = {module_name(source): runtime_imports(source, modules) for source in files}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        # The sorter lists each module before the one that imports it.
        return circle[::-1]
    return []


def engine_impurities(source: Source) -> Iterator[str]:
    """Find input, output, clocks, chance and floating point in an engine file."""
    for line, module in imports(source):
        if module.startswith("smrx.") and not (module.startswith("smrx.engine") or module in ENGINE_SHARES):
            yield f"{source.path}:{line}: imports {module}, which is not of those the engine may use"
        if module.split(".")[0] not in ENGINE_IMPORTS:
            yield f"{source.path}:{line}: imports {module}, which is not of those the engine may use"
    for node in ast.walk(source.tree):
        found: str | None = None
        if isinstance(node, ast.Name) and node.id in ENGINE_FORBIDDEN_NAMES:
            found = node.id
        elif isinstance(node, ast.Attribute) and node.attr in ENGINE_FORBIDDEN_ATTRIBUTES:
            found = node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            found = repr(node.value)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            found = "a division that makes a float"
        if found is not None:
            yield f"{source.path}:{getattr(node, 'lineno', 0)}: {found}"


def code_from_data(source: Source) -> Iterator[str]:
    """Find what turns bytes from outside into running code."""
    for line, module in imports(source):
        if module.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{source.path}:{line}: imports {module}"
    for line, name in names_called(source):
        if name in FORBIDDEN_CALLS:
            yield f"{source.path}:{line}: calls {name}"


def missing_docstring(source: Source) -> Iterator[str]:
    """Find a module that says nothing of itself; an empty package marker has nothing to say."""
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield f"{source.path}: no docstring"


def forbidden_text(path: str, text: str) -> Iterator[str]:
    """Find, in any text file, what would tie the project to one machine or one day."""
    for what, pattern in FORBIDDEN_TEXT.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path}:{line}: {what}: {match.group()!r}"


def readers_of_private_syncobj(files: list[Source]) -> list[str]:
    """The files that reach behind SyncObj's public surface."""
    return [source.path for source in files if PRIVATE_SYNCOBJ.search(source.text)]


def test_imports_point_one_way() -> None:
    assert not [fault for source in sources("smrx") for fault in wrong_imports(source)]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("smrx/engine/kernels/book.py", "from smrx.node import turn"),
        ("smrx/wire/frames.py", "from ..engine import snapshot"),
        ("smrx/wire/frames.py", "import smrx.consensus.replica"),
        ("smrx/wire/frames.py", "from .. import node"),
        ("smrx/node/admin_service.py", "def late():\n    from smrx.cli import main"),
        ("smrx/feed/sequencer.py", "from smrx.consensus import Replica"),
        ("smrx/feed/retransmission.py", "from smrx.node.event_ring import EventRing"),
        ("smrx/settlement/books/money.py", "from smrx.engine.kernels.money import fee"),
        ("smrx/follower/settler.py", "from smrx.settlement.ledger import Ledger"),
        ("smrx/follower/runner.py", "from ..settlement.balance_comparison import BalanceComparison"),
        ("smrx/settlement/verifier.py", "from smrx.consensus import Replica"),
        ("smrx/settlement/verifier.py", "from smrx.node.replicated_state import Applied"),
        ("smrx/config.py", "from smrx import Client"),
        ("smrx/somewhere/new.py", "from smrx.engine import Engine"),
        ("smrx/cli/node_commands.py", "import cluster.demo"),
        ("smrx/local.py", "from tests.oracle import oracle"),
    ],
)
def test_an_import_the_wrong_way_is_found(path: str, text: str) -> None:
    assert list(wrong_imports(Source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "smrx/engine/kernels/book.py",
            "from .jit import U0\nfrom smrx.wire.records import COMMAND\nimport numpy",
        ),
        (
            "smrx/cli/node_commands.py",
            "from smrx.node.reactor import run\nfrom . import exits\nfrom .exits import Exit",
        ),
        ("smrx/cli/__init__.py", "from smrx import __version__\nfrom .node import node"),
        ("smrx/__init__.py", "from smrx.client import Client"),
        ("smrx/local.py", "from smrx.config import Config"),
    ],
)
def test_an_import_the_right_way_is_not_a_fault(path: str, text: str) -> None:
    assert not list(wrong_imports(Source(path, text)))


def test_no_modules_import_each_other() -> None:
    assert not import_circle(sources("smrx"))


@pytest.mark.parametrize(
    "last_import",
    [
        "from smrx.node.alpha import A",
        "from smrx.node import alpha",
        "import smrx.node.alpha",
        "from . import alpha",
        "from .alpha import A",
        "def late():\n    from smrx.node.alpha import A",
    ],
)
def test_import_circle_is_found(last_import: str) -> None:
    files = [
        Source("smrx/node/__init__.py", "from smrx.node.alpha import A"),
        Source("smrx/node/alpha.py", "import os\nfrom smrx.node.beta import B"),
        Source("smrx/node/beta.py", "from smrx.node.gamma import C\nclass B: ..."),
        Source("smrx/node/gamma.py", last_import),
    ]
    circle = import_circle(files)
    assert circle[0] == circle[-1]
    assert set(circle) == {"smrx.node.alpha", "smrx.node.beta", "smrx.node.gamma"}
    at = circle.index("smrx.node.alpha")
    assert circle[at + 1] == "smrx.node.beta"


@pytest.mark.parametrize(
    "last_import", ["if TYPE_CHECKING:\n    from smrx.node.alpha import A", "from smrx.node.other import A"]
)
def test_import_without_a_circle_is_not_a_fault(last_import: str) -> None:
    files = [
        Source("smrx/node/alpha.py", "from smrx.node.beta import B"),
        Source("smrx/node/beta.py", last_import),
        Source("smrx/node/other.py", ""),
    ]
    assert not import_circle(files)


def test_the_engine_is_pure() -> None:
    shared = [
        source for source in sources("smrx/wire") if source.path.removesuffix(".py").replace("/", ".") in ENGINE_SHARES
    ]
    assert len(shared) == len(ENGINE_SHARES)
    assert not [fault for source in (*sources("smrx/engine"), *shared) for fault in engine_impurities(source)]


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from random import randrange",
        "import os",
        "import logging",
        "from threading import Lock",
        "from smrx.wire import frames",
        "from smrx.wire.frames import MAX_COMMANDS",
        "def f(path):\n    return open(path)",
        "print('match')",
        "x = 0.5",
        "x = float(3)",
        "x = a / b",
        "x /= b",
        "x = np.zeros(3, np.float64)",
        "x = np.random.default_rng(1)",
    ],
)
def test_an_impurity_of_the_engine_is_found(text: str) -> None:
    assert list(engine_impurities(Source("smrx/engine/bad.py", text)))


def test_nothing_turns_data_into_code() -> None:
    assert not [
        fault for folder in ("smrx", "cluster") for source in sources(folder) for fault in code_from_data(source)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import marshal",
        "eval('1')",
        "exec(code)",
        "yaml.load(text)",
        "np.load(path, allow_pickle=True)",
        "os.system('ls')",
    ],
)
def test_code_from_data_is_found(text: str) -> None:
    assert list(code_from_data(Source("smrx/wire/bad.py", text)))


def test_one_file_reaches_behind_the_public_surface_of_syncobj() -> None:
    readers = readers_of_private_syncobj(sources("smrx"))
    assert len(readers) <= 1
    assert all(path.startswith("smrx/consensus/") for path in readers)


def test_a_second_reader_of_private_syncobj_is_found() -> None:
    good = Source("smrx/consensus/replica.py", "self._SyncObj__raftNextIndex = {}")
    bad = Source("smrx/node/reactor.py", "getattr(replica, '_SyncObj__raftLog')")
    assert readers_of_private_syncobj([good, bad, Source("smrx/config.py", "x = 1")]) == [good.path, bad.path]


def test_every_module_says_what_it_is() -> None:
    assert not [
        fault
        for folder in ("smrx", "cluster", "tests", "scripts")
        for source in sources(folder)
        for fault in missing_docstring(source)
    ]


def test_a_module_without_docstring_is_found() -> None:
    assert list(missing_docstring(Source("smrx/bad.py", "import os\n")))
    assert not list(missing_docstring(Source("smrx/empty/__init__.py", "\n")))


def test_no_file_names_a_machine_or_leaves_work_undone() -> None:
    faults = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        faults += forbidden_text(path.relative_to(ROOT).as_posix(), text)
    assert not faults


@pytest.mark.parametrize(
    "text",
    [
        "root = '/" + "home/anna/smrx'",
        "see /" + "root/notes.txt",
        "pip install --index" + "-url https://packages.example.org/simple smrx",
        "# TO" + "DO: later",
    ],
)
def test_a_machine_or_undone_work_is_found(text: str) -> None:
    assert list(forbidden_text("README.md", text))


@pytest.mark.parametrize("text", ["https://example.org/home/page", "scripts/work/", "~/home/x", "GET /metrics"])
def test_an_ordinary_path_is_not_a_fault(text: str) -> None:
    assert not list(forbidden_text("README.md", text))


def too_big(paths: list[Path]) -> list[str]:
    """The files that do not belong into a repository by their size."""
    return [f"{path}: {path.stat().st_size} bytes" for path in paths if path.stat().st_size > MAX_FILE_BYTES]


def test_no_file_is_big() -> None:
    assert not too_big(project_files())


def test_a_big_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "tape.csv").write_bytes(bytes(MAX_FILE_BYTES + 1))
    (tmp_path / "small.csv").write_bytes(bytes(MAX_FILE_BYTES))
    assert len(too_big(sorted(tmp_path.iterdir()))) == 1


@pytest.mark.parametrize(
    "name", [".ci/run", *(f"scripts/{n}" for n in ("demo", "test", "check", "bench", "test_replication.sh"))]
)
def test_a_script_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)

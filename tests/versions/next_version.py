"""Build a next version of smrx: a copy of the package under another name, with a few substitutions.

The next version, `smrx_next`, has version 3 of the rules besides those of this one:

- a record field is added: an account counts the orders it places, and the count is hashed when it is not 0;
- a rule is changed: an order of a multiple of 7 lots is rejected (INVALID_QUANTITY);
- the leader writes log entries with another version byte, which this version cannot read.

All three take effect with the switch to version 3. `core.unused` is a planted fault: with 1 the new rule and the count
apply too early, before the switch.

A copy is kept for each content of the engine, with its compiled code, in a directory that git ignores. The processes of
pytest-xdist share it: the first one builds and compiles under a lock. A substitution whose text does
not occur exactly once raises, so that a change of smrx cannot turn the next version into this one unnoticed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "smrx_next"
CACHE = ROOT / ".pytest_cache" / "next-versions"
#: Copies of other contents that are kept.
KEPT = 2

RULES = '''

#: The version of the rules that this program adds.
COUNTING_RULES: Final = 3


@inlined
def has_new_rules(core: Record) -> Any:
    """Whether version 3 is in force. `unused` is a planted fault: with 1 the rules apply one version too early."""
    return core.rules_version + core.unused >= COUNTING_RULES


@kernel
def count_place(state: Tables) -> None:
    """Count an order that an account has placed."""
    core = state.core[0]
    if has_new_rules(core):
        account = state.accounts[state.turn[0].account]
        account.placed += np.uint64(1)
        refresh_account(core, account)
'''

#: File -> (old text, new text); None appends the text.
SUBSTITUTIONS: dict[str, list[tuple[str | None, str]]] = {
    "engine/state.py": [
        (
            '        ("max_open_notional", "<i8"),  # limits',
            '        ("placed", "<u8"),\n        ("max_open_notional", "<i8"),  # limits',
        )
    ],
    "engine/kernels/rules_version.py": [
        ("NEWEST_RULES: Final = 2", "NEWEST_RULES: Final = 3"),
        ("from typing import Any, Final\n", "from typing import Any, Final\n\nimport numpy as np\n"),
        (
            f"from {PACKAGE}.wire.codes import",
            f"from {PACKAGE}.engine.kernels.state_hash import refresh_account\nfrom {PACKAGE}.wire.codes import",
        ),
        (None, RULES),
    ],
    "engine/kernels/registry.py": [
        (
            "    account.max_open_notional = 0\n",
            "    account.max_open_notional = 0\n    account.placed = np.uint64(0)\n",
        )
    ],
    "engine/kernels/state_hash.py": [
        (
            "        replace_hash(core, account, new)\n",
            "        if account.placed != U0:\n"
            "            new += hash3(np.uint64(77), np.uint64(account.account_id), account.placed)\n"
            "        replace_hash(core, account, new)\n",
        )
    ],
    "engine/checks/full_hash.py": [
        (
            "        Part(_account_words),\n",
            "        Part(_account_words),\n        Part(_placed_words, (\"placed\",)),\n",
        ),
        (
            "def _limit_words(",
            "def _placed_words(_: State, rows: Any) -> Words:\n"
            "    return _words(np.full(len(rows), np.uint64(77)), rows[\"account_id\"], rows[\"placed\"])\n\n\n"
            "def _limit_words(",
        ),
    ],
    "engine/kernels/apply.py": [
        (
            "        return check_place(state, command)\n",
            "        if has_new_rules(state.core[0]) and command.quantity_lots % 7 == 0:\n"
            "            return Reason.INVALID_QUANTITY\n"
            "        return check_place(state, command)\n",
        ),
        (
            "        place(state, command, outcome, events, reason)\n",
            "        place(state, command, outcome, events, reason)\n        count_place(state)\n",
        ),
        (
            "rules_version import has_credentials, set_version",
            "rules_version import count_place, has_credentials, has_new_rules, set_version",
        ),
    ],
    "wire/batches.py": [("    if version != VERSION:\n", "    if version not in (VERSION, VERSION + 1):\n")],
    "consensus/messages.py": [("    if entry[1] != VERSION:\n", "    if entry[1] not in (VERSION, VERSION + 1):\n")],
    "node/turn.py": [
        (
            "    def _entry(self, bodies: list[memoryview], details: bytes) -> bytes:\n",
            "    def _entry(self, bodies: list[memoryview], details: bytes) -> bytes:\n"
            "        entry = self._entry_of_version_1(bodies, details)\n"
            "        changed = self.state.rules().in_force > 2\n"
            "        return entry[:1] + bytes((batches.VERSION + 1,)) + entry[2:] if changed else entry\n\n"
            "    def _entry_of_version_1(self, bodies: list[memoryview], details: bytes) -> bytes:\n",
        )
    ],
}  # fmt: skip

_PARTS = "|".join(sorted({path.stem for path in (ROOT / "smrx").iterdir()} - {"__pycache__"}))
#: What names the package in its own source.
_OWN_NAME = re.compile(
    rf'(?<![\w./-])smrx(?=\.(?:{_PARTS})\b)|(?<=^from )smrx(?= import )|(?<="-m", ")smrx(?=")', re.MULTILINE
)

_LAUNCHER = """import sys

sys.path.insert(0, {folder!r})
from {package}.cli import main

main()
"""


class NextVersion(NamedTuple):
    """A built next version."""

    #: The directory of the package, and the command that runs its `smrx`.
    package: Path
    program: tuple[str, ...]


def substitute(name: str, text: str) -> str:
    """Return a file of the next version; raises ValueError if a substitution does not fit exactly once."""
    text = _OWN_NAME.sub(PACKAGE, text)
    for old, new in SUBSTITUTIONS.get(name, []):
        if old is None:
            text += new
            continue
        if text.count(old) != 1:
            raise ValueError(f"smrx/{name}: expected {old.strip()!r} once, found it {text.count(old)} times")
        text = text.replace(old, new)
    return text


def build() -> NextVersion:
    """Return the next version of this tree; build it, and compile its engine if these kernels were not compiled yet."""
    files = {
        path.relative_to(ROOT / "smrx").as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "smrx").rglob("*.py"))
    }
    if unknown := SUBSTITUTIONS.keys() - files:
        raise ValueError(f"smrx/: expected the files {sorted(unknown)}")
    files = {name: substitute(name, text) for name, text in files.items()}
    # Numba keeps machine code beside its source: a copy with the same kernels keeps its directory.
    kernels = "".join(
        text
        for name, text in files.items()
        if name.startswith(("engine/kernels/", "engine/state", "wire/codes", "wire/records"))
    )
    folder = CACHE / hashlib.sha256(kernels.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(folder, files)
        if not (folder / "compiled").exists():
            program = f"import sys; sys.path.insert(0, {str(folder)!r}); from {PACKAGE}.compiling import load; load()"
            subprocess.run([sys.executable, "-c", program], check=True)
            (folder / "compiled").touch()
            _remove_old(folder)
    return NextVersion(folder / PACKAGE, (sys.executable, str(folder / "run.py")))


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write the files that changed: others may be in use, and a new time would compile the engine again."""
    package = folder / PACKAGE
    for path in package.rglob("*.py"):
        if path.relative_to(package).as_posix() not in files:
            path.unlink()
    launcher = {"../run.py": _LAUNCHER.format(folder=str(folder), package=PACKAGE)}
    for name, text in (files | launcher).items():
        target = package / name
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")


def _remove_old(folder: Path) -> None:
    others = sorted((path for path in CACHE.iterdir() if path.is_dir() and path != folder), key=os.path.getmtime)
    for path in others[: max(0, len(others) - KEPT)]:
        shutil.rmtree(path, ignore_errors=True)

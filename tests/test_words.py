"""The project's words stay plain: banned words do not come back, and a module name points to one file."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.test_tidy import ROOT, project_files

BANNED = Path(__file__).with_name("banned_words.toml")
#: Files whose content is not prose or code of the project.
SUFFIXES = {".py", ".md", ".toml", ".txt", ".sql", ".sh", ".cpp", ".yaml", ".json", ""}


_TABLE = tomllib.loads(BANNED.read_text(encoding="utf-8"))
#: Each banned pattern, whether it distinguishes case, and the words to use instead.
INSTEAD = [(re.compile(pattern, re.I), "(?-i:" in pattern, instead) for pattern, instead in _TABLE["instead"].items()]
#: For text in lower case, in which `re` finds the first letters of a pattern many times faster.
_LOWER = {pattern: re.compile(pattern.pattern.lower()) for pattern, has_case, _ in INSTEAD if not has_case}


def banned_words(path: str, text: str) -> Iterator[str]:
    """Find banned words in a text and in the path of its file; the exempt texts may hold them."""
    for snippet in _TABLE["exempt"]:
        text = text.replace(snippet, "")
    lower = text.lower()
    for pattern, has_case, instead in INSTEAD:
        if has_case or _LOWER[pattern].search(lower):
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                yield f"{path}:{line}: {match.group()!r} is banned; write: {instead}"
        if pattern.search(path):
            yield f"{path}: the file name is banned; write: {instead}"


def repeated_module_names(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Map each module name that occurs more than once to its files; package markers do not count."""
    found = defaultdict(list)
    for path in paths:
        if path.suffix == ".py" and path.stem not in {"__init__", "__main__"}:
            found[path.stem].append(path.as_posix())
    return {name: files for name, files in found.items() if len(files) > 1}


def test_no_banned_word_is_in_the_tree() -> None:
    faults: list[str] = []
    for path in project_files():
        # The changelog names what was replaced.
        if path not in {BANNED, ROOT / "CHANGELOG.md"} and path.suffix in SUFFIXES:
            name = path.relative_to(ROOT).as_posix()
            faults += banned_words(name, path.read_text(encoding="utf-8"))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("smrx/sim/faults.py", "from smrx.sim.mis" + "haps import MIS" + "HAPS"),
        ("smrx/sim/mis" + "haps.py", ""),
        ("docs/page.md", "A node that was Found" + "er"),
        ("smrx/node/x.py", "def encourage" + "ment(): ..."),
    ],
)
def test_a_banned_word_is_found(path: str, text: str) -> None:
    assert list(banned_words(path, text))


def test_ordinary_words_are_not_banned() -> None:
    text = "A member without a vote catches up with the log. The opening price of the session is 100."
    assert not list(banned_words("docs/page.md", text))


def test_module_names_are_unique() -> None:
    paths = [path.relative_to(ROOT) for folder in ("smrx", "cluster") for path in (ROOT / folder).rglob("*.py")]
    assert repeated_module_names(paths) == {}


def test_a_repeated_module_name_is_found() -> None:
    paths = [Path(name) for name in ("smrx/a/core.py", "smrx/b/core.py", "smrx/a/__init__.py", "smrx/b/__init__.py")]
    assert repeated_module_names(paths) == {"core": ["smrx/a/core.py", "smrx/b/core.py"]}

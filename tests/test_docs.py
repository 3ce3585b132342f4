"""The documentation matches the code: the command reference, the examples in help texts, the links in all pages."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from smrx.cli import COMMANDS, smrx
from smrx.cli.exit_codes import MEANINGS, Exit
from smrx.cli.reference import commands, help_text, reference
from smrx.config import Config, load
from smrx.wire.codes import (
    CommandKind,
    EventKind,
    InstrumentStatus,
    OrderType,
    Reason,
    Stp,
    TimeInForce,
)

ROOT = Path(__file__).resolve().parent.parent
ALL = dict(commands())
#: Click keeps the help option that the first context of a command asks for; a context without a parent must ask alike.
HELP_OPTIONS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def examples(command: click.Command) -> list[str]:
    """The command lines in the Example block of a help text."""
    found = re.search(r"\n\x08?\s*Examples?:\n((?:[ \t]+\S.*\n?)+)", (command.help or "") + "\n")
    return [line.strip() for line in found.group(1).splitlines()] if found else []


def test_command_reference_is_current() -> None:
    written = (ROOT / "docs/cli-reference.md").read_text(encoding="utf-8")
    assert written == reference(), "docs/cli-reference.md is out of date; run scripts/docs"


def test_command_reference_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference()
    monkeypatch.setenv("COLUMNS", "40")
    assert reference() == before


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_option_has_help(name: str) -> None:
    command = ALL[name]
    assert command.help
    assert command.get_short_help_str(limit=200).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("name", [name for name, command in ALL.items() if not isinstance(command, click.Group)])
def test_every_command_has_an_example_that_its_parser_accepts(name: str) -> None:
    lines = [line for line in examples(ALL[name]) if line.startswith(f"{name} ") or line == name]
    assert lines, f"{name} has no example of itself"
    for line in lines:
        arguments = shlex.split(line.removeprefix(name), comments=True)
        # Parse only: the command does not run, and a wrong option or missing argument raises.
        ALL[name].make_context(name, arguments, **HELP_OPTIONS).close()


def test_example_with_an_unknown_option_is_detected() -> None:
    with pytest.raises(click.UsageError):
        ALL["smrx cluster status"].make_context("smrx cluster status", ["--jsn"], **HELP_OPTIONS)


@pytest.mark.parametrize("name", COMMANDS)
def test_table_of_commands_has_their_short_help(name: str) -> None:
    command = smrx.get_command(click.Context(smrx), name)
    assert command is not None
    assert command.get_short_help_str(limit=200) == COMMANDS[name]


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Exit)
    assert all(f"| {int(code)} |" in reference() for code in Exit)


def test_every_command_accepts_h_and_help() -> None:
    for name, command in ALL.items():
        assert "-h, --help" in help_text(name, command)


def test_readme_opens_with_the_two_commands_and_names_existing_files() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    opening = readme[: readme.index("\n## ")]
    assert "scripts/demo" in opening
    assert "scripts/test" in opening
    for name in re.findall(r"`(scripts/[\w./-]+)", readme):
        assert (ROOT / name).exists(), f"README.md names {name}"
    for line in re.findall(r"^smrx [^\n|]*", readme, re.MULTILINE):
        words = line.split()
        assert any(" ".join(words[:n]) in ALL for n in (2, 3)), f"README.md runs {line!r}"


def test_exchange_rules_link_to_every_transcript() -> None:
    rules = (ROOT / "docs/exchange.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(\.\./([^)#]+)\)", rules))
    assert [link for link in sorted(links) if not (ROOT / link).exists()] == []
    transcripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/transcripts").glob("*.txt")}
    assert sorted(transcripts - links) == []


def test_exchange_rules_name_every_command_event_and_reason() -> None:
    words = set(re.findall(r"[A-Z][A-Z_]+", (ROOT / "docs/exchange.md").read_text(encoding="utf-8")))
    for enumeration in (CommandKind, EventKind, Reason, OrderType, TimeInForce, Stp, InstrumentStatus):
        assert [member.name for member in enumeration if member.name not in words] == []


def test_example_configuration_is_the_default() -> None:
    assert load(ROOT / "configs/three-nodes.toml") == Config()


#: Placeholders for missing text, figures or pictures.
PLACEHOLDER = re.compile(r"@@|\?\?\?|\bT" r"BD\b|<!--\s*(?:insert|figure)", re.IGNORECASE)
#: The target of a link or picture in Markdown, or in HTML within it.
TARGET = re.compile(r"\]\(\s*<?([^)>\s]+)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=[\"']([^\"']+)", re.MULTILINE)
#: Folders without documents of this project.
_FOREIGN = {"build", "dist", "data", "node_modules"}


def pages() -> Iterator[Path]:
    """Yield every Markdown file of the tree."""
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in _FOREIGN]
        yield from (Path(folder, name) for name in names if name.endswith(".md"))


def placeholders(text: str) -> list[str]:
    """Return the lines with a placeholder."""
    return [line for line in text.splitlines() if PLACEHOLDER.search(line)]


def targets(text: str) -> list[str]:
    """Return the targets of the links and pictures of a page, without code."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    return [next(filter(None, found)) for found in TARGET.findall(text)]


def headings(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        # A repeated heading gets a number.
        repeats = next(n for n in range(len(anchors) + 1) if (f"{anchor}-{n}" if n else anchor) not in anchors)
        anchors.add(f"{anchor}-{repeats}" if repeats else anchor)
    return anchors


def broken_links(page: Path, text: str) -> list[str]:
    """Return the relative targets whose file or heading does not exist."""
    absent = []
    for target in targets(text):
        path, _, heading = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            absent.append(target)
        elif heading and file.suffix == ".md":
            there = headings(text if file == page else file.read_text(encoding="utf-8"))
            absent += [target] if heading not in there else []
    return absent


@pytest.mark.parametrize("page", sorted(pages()), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_has_no_placeholder_and_no_broken_link(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert placeholders(text) == []
    assert broken_links(page, text) == []


def test_placeholder_is_detected() -> None:
    assert placeholders("## Figures\n\n@@FIGURES@@\n\nan e-mail@example.org\n") == ["@@FIGURES@@"]


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("![latency](docs/no-such.svg)", ["docs/no-such.svg"]),
        ('<img src="docs/no-such.svg" alt="">', ["docs/no-such.svg"]),
        ("[rules](docs/exchange.md#no-such-heading)", ["docs/exchange.md#no-such-heading"]),
        ("[here](#no-such-heading)", ["#no-such-heading"]),
        ("[rules][1]\n\n[1]: docs/no-such.md", ["docs/no-such.md"]),
        ("[up](../no-such.md)", ["../no-such.md"]),
        ("# A\n# A\n[first](#a) [second](#a-1) [third](#a-2)", ["#a-2"]),
        ("# Some words: more\n[here](#some-words-more) [rules](docs/exchange.md) `[x](y)` <https://example.org>", []),
        ("```\n[x](y)\n```\n[out](https://example.org/x)", []),
    ],
)
def test_broken_link_or_picture_is_detected(text: str, absent: list[str]) -> None:
    assert broken_links(ROOT / "README.md", text) == absent

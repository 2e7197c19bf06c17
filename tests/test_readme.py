"""README and docs against what is there: links, commands with their options, targets of make."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import tramontana

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAM = tuple[str, list[str], bool]
"""Page, words after the name of the program, and whether it is a line to copy (and so is complete)."""


def programs(name: str) -> list[PROGRAM]:
    """Every call of a program in code blocks and in code within the text."""
    found: list[PROGRAM] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [block.replace("\\\n", " ") for language, block in FENCE.findall(text) if language == "sh"]
        lines = [(line, True) for block in blocks for line in block.splitlines()]
        lines += [(" ".join(span.split()), False) for span in SPAN.findall(FENCE.sub("", text))]
        for line, complete in lines:
            if re.match(rf"(\S*/)?{name}( |$)", line):
                # Optional words are written [STORES] in tables.
                words = shlex.split(line.translate({ord("["): None, ord("]"): None}), comments=True)
                found.append((page.name, words[1:], complete))
    return found


def without_callbacks(command: Any) -> Any:
    """The command, made to parse its words and do nothing."""
    command.callback = None
    for subcommand in getattr(command, "commands", {}).values():
        without_callbacks(subcommand)
    return command


def fault(words: list[str], *, complete: bool = True) -> str:
    """What the command line has to say against these words, without running them; empty where nothing."""
    command = without_callbacks(typer.main.get_command(tramontana.app))
    try:
        command.main(words, prog_name="tramontana", standalone_mode=False)
    except Exception as error:
        if not complete and type(error).__name__ == "MissingParameter":
            return ""
        return error.format_message() if hasattr(error, "format_message") else repr(error)
    return ""


def test_pages_are_found():
    assert {"README.md", "architecture.md"} <= {page.name for page in PAGES}
    commands = {words[0] for _, words, _ in programs("tramontana") if words}
    assert {"demo", "ingest", "explore", "evaluate"} <= commands
    assert {"explore", "test"} <= {word for _, words, _ in programs("make") for word in words}


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    targets = [target for target in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (document.parent / target.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("words", "complete"),
    [
        pytest.param(words, complete, id=f"{name} {shlex.join(words)}")
        for name, words, complete in programs("tramontana")
    ],
)
def test_commands_and_options_exist(words, complete):
    assert fault(words, complete=complete) == ""


def test_targets_and_variables_of_make_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w.-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^(\w+) [?:]?=", makefile, re.MULTILINE))
    for page, words, _ in programs("make"):
        for word in words:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets), f"{page}: make {word}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("fly", "No such command 'fly'"),
        ("ingest gribs a.grib", "No such command 'gribs'"),
        ("demo --days 3", "No such option: --days"),
        ("demo --hours many", "Invalid value for '--hours'"),
        ("statics --out file.nc", "Missing option '--elevation'"),
        ("evaluate", "Missing argument 'STORE'"),
        ("show a.zarr b.zarr", "unexpected extra argument"),
    ],
)
def test_faults_are_noticed(line, complaint):
    assert complaint.lower() in fault(line.split()).lower()


def test_a_command_that_is_only_named_needs_no_arguments():
    assert fault(["evaluate"], complete=False) == ""
    assert "--days" in fault(["demo", "--days"], complete=False)

"""What commands print: in terminals of any width, without colours where asked, and as JSON and nothing else in pipes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import shlex
import struct
import termios

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from factory_lib.cli import factory
from factory_lib.commands import output
from factory_lib.tables import fitting, print_table
from tests.command_line import COMMAND, photos, run

__all__ = ["photos"]


def in_terminal(columns: int, *arguments: str, **environment: str) -> list[str]:
    """The lines that a command prints in a terminal of so many columns."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.pop("COLUMNS", None)
        os.environ.update({"TERM": "xterm-256color", **environment})
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execvp(COMMAND[0], [*COMMAND, *arguments])
    said = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the command is gone
            break
        if not piece:
            break
        said += piece
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0, said
    return said.decode().replace("\r\n", "\n").splitlines()


@pytest.mark.usefixtures("photos")
def test_a_narrow_terminal_gets_whole_numbers_and_fewer_columns() -> None:
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in in_terminal(40, "ls")]
    assert max(map(len, lines)) <= 40
    assert re.match(r"photos +v2 +2 +200\b", lines[2]), lines
    assert lines[4].startswith("No room for")
    assert in_terminal(200, "ls", TERM="dumb")[0].split() == [
        *("dataset", "latest", "versions", "rows", "size", "added", "created", "tags"),
    ]


@pytest.mark.usefixtures("photos")
def test_colours_are_left_out_where_nobody_wants_them() -> None:
    assert not any("\x1b" in line for line in in_terminal(80, "show", "photos", TERM="dumb"))
    assert not re.search(r"\x1b\[(3|4|9|10)\d", "".join(in_terminal(80, "show", "photos", NO_COLOR="1")))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_fit_whatever_stands_in_them(width: int) -> None:
    names = ("dataset", "rows", "note", "added", "tags")
    rows = [
        ("名前" * 60, "12,345,678,901", "a long text with words " * 9, "1.23 kB", "x" * 300),
        ("é", "7", "", "", ""),
    ]
    console = Console(file=io.StringIO(), width=width)
    console.print(output._drawn(names, rows, "", {"rows", "added"}, width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(console.measure, text.splitlines()), key=lambda one: one.maximum).maximum <= width
    assert "12,345,678,901" in text
    assert ("1.23 kB" in text) == ("added" not in text.rpartition("No room for")[2]) or width == 200


def test_what_fits() -> None:
    assert fitting([7, 6, 100, 9], {1, 3}, 80) == (4, [7, 6, 20, 9])
    assert fitting([7, 6, 100, 9], {1, 3}, 40) == (3, [7, 6, 20])
    assert fitting([300], set(), 40) == (1, [20])
    assert fitting([300, 5], {0}, 40) == (1, [40])


@pytest.mark.usefixtures("engine")
def test_show_prints_the_columns_that_have_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_table(pa.table({f"column_{i}": [10**15 + i] for i in range(9)} | {"markup": ["[bold]x[/nosuch]"]}))
    said = capsys.readouterr().out
    assert "1000000000000001" in said
    assert "No room for column_3" in said


JSON = [
    *("ls", "ls photos", "show photos", "sql SELECT(1)", "diff photos.v1 photos.v2", "lineage wide", "trace wide a7"),
    *(
        "reproduce wide",
        "verify wide",
        "tag",
        "tag photos.v1 icml",
        "gc",
        "cache show",
        "cache clear",
        "unsynced samples",
    ),
    *("why-stale samples", "status", "lineage photos --down", "backup {folder}/backups", "show wide --shards"),
]


@pytest.mark.usefixtures("photos")
def test_json_is_all_that_stands_in_the_output(tmp_path: object) -> None:
    for call in JSON:
        result = CliRunner().invoke(factory, [*call.replace("{folder}", str(tmp_path)).split(), "--json"])
        assert result.exit_code == 0, (call, result.output, result.exception)
        json.loads(result.stdout)
        assert "\x1b" not in result.stdout + result.stderr, call


def test_every_command_takes_json_but_the_one_that_prints_a_script() -> None:
    for name in factory.list_commands(None):  # type: ignore[arg-type]
        command = factory.get_command(None, name)  # type: ignore[arg-type]
        inner = getattr(command, "commands", {name: command})
        for one in inner.values():
            assert ("--json" in {flag for param in one.params for flag in param.opts}) == (name != "completion"), (
                one.name
            )


def test_help_fits_a_narrow_terminal() -> None:
    for name in factory.list_commands(None):  # type: ignore[arg-type]
        text = CliRunner().invoke(factory, [name, "--help"], terminal_width=60).stdout
        assert "Example:" in text or name == "demo"
        prose = text.partition("Example:")[0]
        assert max(map(len, prose.splitlines())) <= 62, name
    assert "Error" not in run("--help").stderr


def test_the_examples_of_help_are_calls_that_are_understood() -> None:
    seen = 0
    for name in factory.list_commands(None):  # type: ignore[arg-type]
        command = factory.get_command(None, name)  # type: ignore[arg-type]
        for one in getattr(command, "commands", {name: command}).values():
            for line in (one.help or "").partition("Example:")[2].splitlines():
                words = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line.strip()).partition(" > ")[0].partition("   #")[0]
                called = [word for word in shlex.split(words) if not word.startswith("FACTORY_")]
                if not called:
                    continue
                given = called[called.index(one.name) + 1 :]
                options, left, _ = one.make_parser(click.Context(one)).parse_args(list(given))
                missing = [param.name for param in one.params if param.required and not options.get(param.name)]
                assert (called[0], left, missing) == ("factory", [], []), line
                seen += 1
    assert seen > 30

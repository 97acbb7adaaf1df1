"""`factory init`: a project of one's own that stands on the factory."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import shlex
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from factory_lib.commands.options import command
from factory_lib.commands.output import print_json
from factory_lib.errors import FactoryError, InvalidName

_EXAMPLE = "my_factory"
"""The package in the template, whose name is replaced; its project is called `my-factory`."""


@command(
    """
    factory init my-factory
    factory init work/photos --name street_photos
    """
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", metavar="NAME", help="Name of the Python package. [default: the folder's]")
def init_command(directory: Path, name: str | None, as_json: bool) -> None:
    """Make a project with stages of your own: signal, stages, check, settings, tests, CI.

    Its graph is the one that comes with the factory, with two stages and a plain asset behind it, and a second code
    location that reads a dataset by its name.
    """
    package = package_name(name or directory.resolve().name)
    if directory.is_dir() and any(directory.iterdir()):
        raise FactoryError(f"{directory} is not empty.", "Name a folder that is not there yet: factory init my-factory")
    files = {place: text.replace(_EXAMPLE, package) for place, text in template()}
    project = package.replace("_", "-")
    for place, text in files.items():
        target = directory / place.replace(_EXAMPLE, package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace(_EXAMPLE.replace("_", "-"), project))
    steps = [
        f"cd {shlex.quote(str(directory))} && python -m pip install -e '.[dev]'",
        "pytest",
        "factory up --source FOLDER_OR_BUCKET",
    ]
    if as_json:
        made = sorted(place.replace(_EXAMPLE, package) for place in files)
        print_json({"folder": directory.resolve(), "package": package, "files": made, "next": steps})
        return
    click.echo(f"Made the project {project} in {directory}, {len(files)} files; its README says what is in them.")
    click.echo("Next:\n" + "\n".join(f"  {step}" for step in steps))


def package_name(text: str) -> str:
    """The package of a project of this name.

    Raises:
        InvalidName: no package can have it, or another one that is installed does.
    """
    name = re.sub(r"[-. ]+", "_", text).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InvalidName(
            f"{text!r} cannot be the name of a Python package.",
            "Letters, digits and _, a letter first: factory init DIR --name my_factory",
        )
    for taken in (name, f"{name}_exports"):
        if importlib.util.find_spec(taken) is not None:
            raise InvalidName(
                f"There is a Python package {taken!r} already.", "Choose another: factory init DIR --name my_factory"
            )
    return name


def template() -> Iterator[tuple[str, str]]:
    """Places and texts of the files of the template.

    In the package they end in `.tmpl`, so that nobody takes them for its code, and `dot-` stands for the dot of those
    that are hidden.
    """
    return _files(importlib.resources.files("factory_lib").joinpath("project_template"), "")


def _files(folder: Traversable, above: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        name = re.sub(r"^dot-", ".", entry.name)
        if entry.is_dir():
            yield from _files(entry, f"{above}{name}/")
        elif name.endswith(".tmpl"):
            yield above + name.removesuffix(".tmpl"), entry.read_text(encoding="utf-8")

"""`factory tag`: names for versions that stay where they are put."""

from __future__ import annotations

import click

from factory_lib import catalog
from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import print_json, print_rows, say, when
from factory_lib.names import parse_ref


@command(
    """
    factory tag laion.v3 icml       # from now on laion@icml is laion.v3
    factory tag laion               # the tags of laion
    factory tag --delete laion@icml
    factory tag s3://team/datasets/laion.v3 icml
    """
)
@click.argument("version", required=False, type=VersionName())
@click.argument("tag", required=False)
@click.option("--force", is_flag=True, help="Move the tag when another version has it.")
@click.option("--delete", is_flag=True, help="Take the tag away; the version stays.")
def tag_command(version: str | None, tag: str | None, force: bool, delete: bool, as_json: bool) -> None:
    """Give a version a tag, or list the tags.

    A tagged version is kept by `factory gc`, and its tag stays on it unless it is moved with --force.
    """
    if delete:
        _delete(version, tag, as_json)
    elif version is None or tag is None:
        _list(version, as_json)
    else:
        changed = catalog.tag(version, tag, force=force)
        found = next(one for one in catalog.tag_list(version) if one.tag == tag)
        if as_json:
            print_json({"tag": str(found), "version": found.version, "changed": changed})
        else:
            click.echo(f"{found} is {found.version}" + ("." if changed else " already."))


def _delete(version: str | None, tag: str | None, as_json: bool) -> None:
    place, slash, last = (version or "").rpartition("/")
    ref = parse_ref(last) if last else None
    name = tag or (ref.tag if ref else None)
    if ref is None or name is None:
        raise click.UsageError("Which tag? factory tag --delete laion@icml")
    gone = catalog.untag(f"{place}{slash}{ref.dataset}@{name}")
    if as_json:
        print_json({"deleted": str(gone), "version": gone.version})
    else:
        click.echo(f"{gone} is gone; it was {gone.version}.")


def _list(version: str | None, as_json: bool) -> None:
    found = catalog.tag_list(version)
    if as_json:
        print_json([{"tag": str(t), "version": t.version, "since": t.since} for t in found])
    elif not found:
        say("There are no tags. Make one: factory tag laion.v3 icml")
    else:
        print_rows(("tag", "version", "since"), [(str(t), t.version, when(t.since)) for t in found])

"""`factory up`, `down`, `status`: the local engine and Dagster's UI."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from factory_lib.commands.naming import PathOrUri
from factory_lib.commands.options import command
from factory_lib.commands.output import console, facts, print_json, say
from factory_lib.errors import FactoryError
from factory_lib.orchestration.serving import serve, serving, sole_server, stop_serving
from factory_lib.owners import started_at
from factory_lib.redaction import without_credentials
from factory_lib.settings import remember_source, settings
from factory_lib.warehouse.embedded import engine_status, stop_engine
from factory_lib.warehouse.provenance import installed_at, package_version


@command(
    """
    factory up
    factory up --source s3://bucket/shards --port 3001
    """
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the UI. [default: the first free one from 3000]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that the UI listens at.")
@click.option(
    "--source",
    metavar="URI",
    type=PathOrUri(),
    help="Shards that the asset graph ingests; remembered for the next time.",
)
def up_command(port: int | None, host: str, source: str | None, as_json: bool) -> None:
    """Start the engine and Dagster's UI, and run until Ctrl-C.

    The UI shows the graph of workspace.yaml in this folder, or the one that comes with the package. It asks nobody for
    a password: --host 0.0.0.0 lets everybody in.
    """
    from factory_lib.warehouse.client import warehouse

    found = settings()
    if source:
        check_source(source)
    signal.signal(signal.SIGTERM, _interrupt)
    with sole_server(found.home) as me:
        if source:
            remember_source(source)
        was_running = engine_status(found.home) is not None if found.clickhouse_url is None else True
        try:
            warehouse().scalar("SELECT 1")
            say("Starting Dagster, which takes half a minute …")
            with serve(found.home, me, host, port) as process:
                _tell(found.home, as_json)
                process.wait()
                log = found.home / "dagster" / "dev.log"
                raise FactoryError(f"Dagster ended by itself, with code {process.returncode}.", f"Its log: {log}.")
        except KeyboardInterrupt:
            say("Stopped.")
        finally:
            if not was_running:
                stop_engine(found.home)


def check_source(uri: str) -> None:
    """Look whether anything is at the URI of a source: one that is mistyped is told before anything starts.

    Raises:
        FileMissing: nothing is there; the hint says what is instead.
    """
    from factory_lib.storage.store import is_local, store

    if is_local(uri) and not any(mark in uri for mark in "*?[{") and not Path(store().resolve(uri)).exists():
        store().info(uri)


def _tell(home: Path, as_json: bool) -> None:
    state, log = serving(home), str(home / "dagster" / "dev.log")
    url = state.url if state else ""
    if as_json:
        print_json({"url": url, "log": log, "engine": engine_status(home)})
        return
    click.echo(f"The UI is at {url}")
    say(f"Log: {log}\nCtrl-C stops it.")


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@command("factory down")
def down_command(as_json: bool) -> None:
    """Stop the UI that `factory up` runs, and the local engine.

    Nothing is lost: the engine starts again when it is needed.
    """
    home = settings().home
    done = {"ui": stop_serving(home), "engine": stop_engine(home)}
    if as_json:
        print_json({"stopped": [name for name, stopped in done.items() if stopped]})
        return
    names = {"ui": "the UI", "engine": "the engine"}
    stopped = [names[name] for name, was_there in done.items() if was_there]
    click.echo(f"Stopped {' and '.join(stopped)}." if stopped else f"Nothing runs on {home}.")


@command("factory status")
def status_command(as_json: bool) -> None:
    """Show what runs, and how many datasets there are.

    It starts nothing: datasets are counted only where the engine runs.
    """
    found = settings()
    engine = engine_status(found.home) if found.clickhouse_url is None else None
    ui = serving(found.home)
    running = {"the engine": engine["pid"]} if engine else {}
    older = _older(running | ({"the UI": ui.owner.pid} if ui and ui.owner.is_here else {}))
    several = _several(found.source)
    counted, wrong = _datasets() if engine or found.clickhouse_url else (None, "")
    if as_json:
        server = _server(found.clickhouse_url)
        print_json(
            {
                "home": found.home,
                "server": server,
                "engine": engine,
                "ui": ui.url if ui else None,
                "datasets": counted,
                "source": found.source and without_credentials(found.source),
                "sources": several,
                "older_than_installed": older,
            }
        )
        return
    lines = [("home", str(found.home))]
    if found.clickhouse_url:
        lines.append(("server", _server(found.clickhouse_url) or ""))
    elif engine:
        lines.append(("engine", f"process {engine['pid']} on 127.0.0.1:{engine['port']}, log {engine['log']}"))
    else:
        lines.append(("engine", "not running; it starts when it is needed"))
    lines.append(("ui", (ui.url or "starting") if ui else "not running; factory up starts it"))
    if counted is not None:
        lines.append(("datasets", f"{counted['datasets']:,} with {counted['versions']:,} versions"))
    if wrong:
        lines.append(("datasets", f"not counted: {wrong}"))
    lines.append(("source", found.source or "none; factory up --source URI names one"))
    lines += [("", f"{name}: {uri}") for name, uri in several.items()]
    if older:
        text = f"{' and '.join(older)} started before {package_version()} was installed: factory down; factory up"
        lines.append(("upgrade", text))
    console().print(facts(lines))


def _older(running: Mapping[str, int]) -> list[str]:
    """Of what runs (name -> process id), that which started before the package was installed that is there now."""
    installed = installed_at()
    began = {name: started_at(pid) for name, pid in running.items()}
    return [name for name, at in began.items() if installed is not None and at is not None and at < installed]


def _several(source: str | None) -> dict[str, str]:
    """Name of each of several sources -> where it is, or why that cannot be told: what runs is shown all the same."""
    from factory_lib.sources.declared import is_sources_file, read_sources

    if source is None or not is_sources_file(source):
        return {}
    try:
        return {one.name: without_credentials(one.uri) for one in read_sources(source)}
    except FactoryError as error:
        return {"not read": error.message}


def _server(url: str | None) -> str | None:
    from factory_lib.warehouse.address import shown

    return shown(url) if url else None


def _datasets() -> tuple[dict[str, int] | None, str]:
    """How many there are, or why that cannot be told: what runs is shown all the same."""
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.versions import datasets

    try:
        found = datasets(warehouse())
    except FactoryError as error:
        return None, error.message
    return {"datasets": len(found), "versions": sum(map(len, found.values()))}, ""

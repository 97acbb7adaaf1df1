"""Alerts: what the receiver gets, how often, and what becomes of them when there is none."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from factory_assets.defs import automation
from factory_lib.errors import SettingsError
from factory_lib.orchestration.alerts import outbox
from factory_lib.orchestration.alerts.sensors import failed_line, failure_sensor, mail_sensor, red_check_sensor
from factory_lib.orchestration.first_line import explained

SECRET = "B0T0KEN"


class Receiver:
    """A webhook: what it got, and what it answers."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answer = 200
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.answer == 200:
                    receiver.got.append(json.loads(body))
                self.send_response(receiver.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("FACTORY_ALERT_URL", made.url)
    monkeypatch.setenv("FACTORY_UI_URL", "https://dagster.example.org/")
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def failing(*, explain: bool = True) -> dg.Definitions:
    @dg.asset
    def broken() -> None:
        if not explain:
            raise ValueError("token=hush-hush")
        with explained("broken"):
            raise ValueError("no such word")

    return dg.Definitions([broken])


def failed(instance: dg.DagsterInstance, definitions: dg.Definitions) -> dg.RunFailureSensorContext:
    """The context that the sensor gets of a run that failed."""
    job = definitions.resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, raise_on_error=False, run_config=quiet)
    context = dg.build_run_status_sensor_context(
        "failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    return context.for_run_failure()


def tell(context: dg.RunFailureSensorContext) -> Any:
    return failure_sensor()(context)


def test_a_failed_run_is_told_of_once(receiver: Receiver, instance: dg.DagsterInstance) -> None:
    first = failed(instance, failing())
    tell(first)
    for _ in range(3):  # as every 15 s
        tell(failed(instance, failing()))
    [alert] = receiver.got
    link = f"https://dagster.example.org/runs/{first.dagster_run.run_id}"
    line = "broken: ValueError: no such word · repeat: factory run --select broken"
    assert alert == {
        "text": f"{line}\n{link}",
        "source": "dataset-factory",
        "kind": "run failed",
        "line": line,
        "url": link,
    }


def test_it_is_told_of_again_when_it_was_quiet_for_long(
    receiver: Receiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(failed(instance, failing()))
    monkeypatch.setattr(outbox, "QUIET_SECONDS", 0.0)
    tell(failed(instance, failing()))
    assert len(receiver.got) == 2


def test_a_receiver_that_fails_gets_it_later_and_no_secret_is_told(
    receiver: Receiver, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    receiver.answer = 500
    tell(failed(instance, failing()))
    assert outbox.Outbox(instance).send(said.append) == 1
    with monkeypatch.context() as dead:
        dead.setenv("FACTORY_ALERT_URL", f"http://127.0.0.1:9/{SECRET}")
        outbox.Outbox(instance).send(said.append)
        dead.setenv("FACTORY_ALERT_URL", f"file:///{SECRET}")
        outbox.Outbox(instance).send(said.append)
        dead.setenv("FACTORY_ALERT_URL", f"http://[{SECRET}")
        outbox.Outbox(instance).send(said.append)
    assert said[:2] == [
        "127.0.0.1 takes no alerts: it answered 500.",
        "127.0.0.1 takes no alerts: ConnectionRefusedError.",
    ]
    assert len(said) == 4
    assert SECRET not in str(said)
    receiver.answer = 200
    assert outbox.Outbox(instance).send(said.append) == 0
    assert [one["kind"] for one in receiver.got] == ["run failed"]


def test_other_errors_and_killed_runs_get_a_line_too(instance: dg.DagsterInstance) -> None:
    line = failed_line(failed(instance, failing(explain=False)))
    assert line == "broken: ValueError: token=*** · repeat: factory run --select broken"

    run = instance.create_run_for_job(
        failing().resolve_implicit_global_asset_job_def(),
        asset_selection=frozenset({dg.AssetKey("broken")}),
        tags={"dagster/partition": "00003"},
    )
    instance.report_run_failed(run, "Run worker was ended by signal 9.")
    [event] = [e.dagster_event for e in instance.all_logs(run.run_id) if e.dagster_event and e.dagster_event.is_failure]
    context = dg.build_run_status_sensor_context(
        "failed_runs", dagster_event=event, dagster_instance=instance, dagster_run=instance.get_run_by_id(run.run_id)
    ).for_run_failure()
    line = "broken: Run worker was ended by signal 9. · repeat: factory run --select broken --shards 00003"
    assert failed_line(context) == line
    assert "FACTORY_ALERT_URL" in str(tell(context).skip_message)  # off, and says how to turn it on
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
    assert line in [event.message for event in events if event is not None]


def test_a_check_is_told_of_when_it_turns_red(receiver: Receiver, instance: dg.DagsterInstance) -> None:
    state = {"passed": True, "severity": dg.AssetCheckSeverity.ERROR}

    @dg.asset(check_specs=[dg.AssetCheckSpec("volume", asset="kept")])
    def kept() -> dg.MaterializeResult:
        result = dg.AssetCheckResult(
            check_name="volume",
            description="3 of 100 left",
            **state,  # type: ignore[arg-type]
        )
        return dg.MaterializeResult(check_results=[result])

    definitions = dg.Definitions([kept])
    cursor: str | None = None

    def tick(passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR) -> int:
        nonlocal cursor
        state.update(passed=passed, severity=severity)
        dg.materialize([kept], instance=instance, raise_on_error=False)
        with dg.build_sensor_context(instance, cursor, definitions=definitions) as context:
            red_check_sensor()(context)
            cursor = context.cursor
        return len(receiver.got)

    assert tick(True) == 0
    assert tick(False, dg.AssetCheckSeverity.WARN) == 0
    assert tick(False) == 1
    assert tick(False) == 1
    assert receiver.got[0]["line"] == "kept: the check volume is red: 3 of 100 left"
    assert receiver.got[0]["url"] == "https://dagster.example.org/assets/kept?view=checks"
    assert tick(True) == 1


def test_the_graph_has_them_and_they_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert automation.red_checks.default_status == dg.DefaultSensorStatus.STOPPED
    assert "FACTORY_ALERT_URL" in str(automation.red_checks.description)
    assert automation.mail_of_failed_runs is None


def test_mail_goes_by_the_server_that_is_set(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "dagster._utils.alert.send_email_via_ssl",
        lambda *given, **more: sent.append({"given": (*given, *more.values())}),
    )
    assert mail_sensor() is None
    monkeypatch.setenv("FACTORY_ALERT_EMAIL", "night@example.org, day@example.org")
    monkeypatch.setenv("FACTORY_SMTP_URL", "https://example.org")
    with pytest.raises(SettingsError, match="no address of a mail server"):
        mail_sensor()
    monkeypatch.setenv("FACTORY_SMTP_URL", "smtps://bot%40example.org:pa%2Fss@mail.example.org:4650")
    monkeypatch.setenv("FACTORY_UI_URL", "https://dagster.example.org")
    sensor = mail_sensor()
    assert sensor is not None
    sensor(failed(instance, failing()))
    sender, password, to, message, host, port, user = sent[0]["given"]
    assert (sender, password, host, port, user) == (
        "bot@example.org",
        "pa/ss",
        "mail.example.org",
        4650,
        "bot@example.org",
    )
    assert to == ["night@example.org", "day@example.org"]
    message.encode("ascii")
    assert "Subject: broken: ValueError: no such word" in message
    assert "https://dagster.example.org/runs/" in message
    assert "pa/ss" not in message

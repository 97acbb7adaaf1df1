"""Alerts: somebody hears of a run that failed and of a check that turned red.

Off by default. A webhook (`FACTORY_ALERT_URL`) takes JSON with a `text`, as Slack, Mattermost and most others do; mail
goes out where `FACTORY_ALERT_EMAIL` and `FACTORY_SMTP_URL` are set, by Dagster's own sensor. An alert says what the
run's page says first, with a link to it (`FACTORY_UI_URL`). The same words are not sent again while they recur.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

import dagster as dg

from factory_lib.errors import SettingsError
from factory_lib.orchestration.alerts.outbox import Alert, Outbox
from factory_lib.orchestration.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    AssetCheckExecutionRecordStatus,
)
from factory_lib.orchestration.first_line import line_of, repeat
from factory_lib.orchestration.runs.in_process import SHARDS_TAG
from factory_lib.orchestration.serving import serving
from factory_lib.redaction import redact
from factory_lib.settings import alert_email, alert_url, settings, smtp_url, ui_url

TURN_ON = "No alerts are sent: set FACTORY_ALERT_URL to a webhook that takes JSON with a text."


def failure_sensor() -> dg.SensorDefinition:
    """A sensor that tells of each run that failed, whoever started it.

    It always runs, for what a run whose process was killed can't say itself: its log gets the first line then.
    """

    @dg.run_failure_sensor(
        name="failed_runs",
        description="Says in a failed run's log how to repeat it, and sends alerts. " + _state(),
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def failed_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        line = failed_line(context)
        if not context.get_step_failure_events():
            context.instance.report_engine_event(line, context.dagster_run)
        if alert_url() is None:
            return dg.SkipReason(TURN_ON)
        outbox = Outbox(context.instance)
        outbox.put(Alert("run failed", line, _link(f"runs/{context.dagster_run.run_id}")))
        outbox.send(context.log.warning)
        return None

    return failed_runs


def red_check_sensor(seconds: int = 60) -> dg.SensorDefinition:
    """A sensor that tells of each check that turned red: it failed, and is no mere warning.

    Args:
        seconds: how often it looks.
    """

    @dg.sensor(
        name="red_checks",
        description="Sends alerts of checks that turned red. " + _state(),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if alert_url() else dg.DefaultSensorStatus.STOPPED,
    )
    def red_checks(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if alert_url() is None:
            return dg.SkipReason(TURN_ON)
        assert context.repository_def is not None
        red = red_now(context.instance, sorted(context.repository_def.asset_graph.asset_check_keys))
        known = set(json.loads(context.cursor or "[]"))
        outbox = Outbox(context.instance)
        for name, alert in red.items():
            if name not in known:
                outbox.put(alert)
        context.update_cursor(json.dumps(sorted(red)))
        left = outbox.send(context.log.warning)
        return dg.SkipReason(f"{len(red)} checks are red; {left} alerts wait for the receiver.")

    return red_checks


def mail_sensor() -> dg.SensorDefinition | None:
    """Dagster's sensor that mails failed runs; None where no mail is configured.

    Raises:
        SettingsError: the settings of mail cannot be used.
    """
    to, url = alert_email(), smtp_url()
    if not to or not url:
        return None
    server = urlsplit(url)
    if server.scheme not in {"smtp", "smtps"} or not server.hostname or not server.username:
        raise SettingsError(
            "FACTORY_SMTP_URL is no address of a mail server.", "Such as smtps://user%40example.org:password@host:465."
        )
    user = unquote(server.username)
    return dg.make_email_on_run_failure_sensor(
        email_from=user if "@" in user else to[0],
        email_password=unquote(server.password or ""),
        email_to=to,
        email_body_fn=lambda context: _mail(failed_line(context), _link(f"runs/{context.dagster_run.run_id}")),
        email_subject_fn=lambda context: _ascii(failed_line(context))[:120],
        smtp_host=server.hostname,
        smtp_type="SSL" if server.scheme == "smtps" else "STARTTLS",
        smtp_port=server.port,
        smtp_user=user,
        name="mail_of_failed_runs",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def failed_line(context: dg.RunFailureSensorContext) -> str:
    """What a failed run's page says first; for a run that was ended from outside, what it was for and how."""
    for event in context.get_step_failure_events():
        return redact(line_of(event))
    run = context.dagster_run
    stages = sorted(key.to_user_string() for key in run.asset_selection or ()) or [run.job_name]
    why = " ".join((context.failure_event.message or "it ended without saying why").split())
    return redact(f"{', '.join(stages)}: {why} · repeat: {repeat(','.join(stages), _shards(run.tags))}")


def _shards(tags: Mapping[str, str]) -> list[str]:
    """The shards that a run was for, as its tags tell and `factory run` takes them; none where these are too many."""
    if PARTITION_NAME_TAG in tags:
        return [tags[PARTITION_NAME_TAG]]
    if SHARDS_TAG in tags:
        return [] if tags[SHARDS_TAG].endswith("…") else tags[SHARDS_TAG].split(",")
    ends = [tags.get(name) for name in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)]
    return [f"{ends[0]}..{ends[1]}"] if all(ends) else []


def red_now(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> dict[str, Alert]:
    """The checks whose newest evaluation is red, by name, with what is to be told of them."""
    found: dict[str, Alert] = {}
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    for key, record in records.items():
        event = record.event.dagster_event if record.event is not None else None
        if record.status != AssetCheckExecutionRecordStatus.FAILED or event is None:
            continue
        evaluation = event.asset_check_evaluation_data
        if evaluation.passed or evaluation.severity != dg.AssetCheckSeverity.ERROR:
            continue
        asset = key.asset_key.to_user_string()
        said = redact(evaluation.description or "it says no more")
        link = _link(f"assets/{'/'.join(key.asset_key.path)}?view=checks")
        found[f"{asset}: {key.name}"] = Alert("check red", f"{asset}: the check {key.name} is red: {said}", link)
    return found


def _state() -> str:
    return "Alerts go to the webhook of FACTORY_ALERT_URL." if alert_url() else TURN_ON


def _link(path: str) -> str:
    """Where the UI shows something; empty where nobody knows its address."""
    running = serving(settings().home)
    base = ui_url() or (running.url if running else "")
    return f"{base.rstrip('/')}/{path}" if base else ""


def _mail(line: str, link: str) -> str:
    shown = f'<br><a href="{html.escape(link)}">{html.escape(link)}</a>' if link else ""
    return _ascii(html.escape(line)) + shown


def _ascii(text: str) -> str:
    """A text as Dagster's mails can hold it."""
    return text.encode("ascii", "xmlcharrefreplace").decode()

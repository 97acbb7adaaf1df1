"""The engine's own configuration of the bucket: where it asks, and how often."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from factory_lib.engine.disks import disks_xml


def bucket(uri: str, server: str) -> dict[str, str]:
    """What the configuration says of the bucket's disk."""
    disk = ElementTree.fromstring(disks_xml(uri, server, "eu-west-1", 1000)).find(".//disks/bucket")
    assert disk is not None
    return {one.tag: one.text or "" for one in disk}


@pytest.mark.parametrize(
    ("uri", "server", "endpoint"),
    [
        ("s3://team/a/b", "https://s3.eu-west-1.amazonaws.com", "https://team.s3.eu-west-1.amazonaws.com/a/b/parts/"),
        # a certificate for *.s3.amazonaws.com is none for a name with another dot
        ("s3://te.am/a", "https://s3.amazonaws.com", "https://s3.amazonaws.com/te.am/a/parts/"),
        ("s3://team/a", "http://minio:9000", "http://minio:9000/team/a/parts/"),
        ("s3://team/a&b<c", "https://storage.googleapis.com/", "https://storage.googleapis.com/team/a&b<c/parts/"),
    ],
)
def test_endpoints(uri: str, server: str, endpoint: str) -> None:
    found = bucket(uri, server)
    assert found["endpoint"] == endpoint
    assert found["region"] == "eu-west-1"
    assert not {"access_key_id", "secret_access_key"} & found.keys()


def test_requests_are_tried_about_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def waited(seconds: str) -> float:
        monkeypatch.setenv("FACTORY_RETRY_SECONDS", seconds)
        tries = int(bucket("s3://team/a", "http://minio:9000")["s3_retry_attempts"])
        waits = 0.0
        for number in range(tries):  # 25 ms, doubled up to 5 s; all that as many times again by who writes
            waits += min(0.025 * 2**number, 5.0)
        return tries * waits

    assert waited("0") < 1
    assert 20 < waited("30") <= 30
    assert 200 < waited("300") <= 300

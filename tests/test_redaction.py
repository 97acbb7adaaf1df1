"""Secrets put into URIs, headers and settings never come out of the redactor, which is linear."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import SourceError, StoreError
from factory_lib.redaction import quiet, redact, stripped, without_credentials
from factory_lib.signals.task import describe
from factory_lib.sources.surviving import worded
from factory_lib.storage.store import store

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40).map(
    lambda s: f"S3{s}cr3T"
)
IN_URIS = (
    "s3://key:{}@bucket/a.tar",
    "https://user:{}@host:8443/a?format=json",
)
IN_PARAMETERS = (
    "https://{}@host/a",
    "https://host/a?auth={}",
    "https://host/a?code={}&format=json",
    "https://host/a?{}",
    "https://host:80/a.tar?X-Amz-Signature={}&X-Amz-Date=1",
    "https://host/a#access_token={}",
    "az://c/a?sv=1&sig={}&se=2",
)
IN_TEXT = (
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    "failed with Bearer {} and more",
    "aws_secret_access_key={}",
    "{{'api_key': '{}'}}",
    "password: {}",
    '{{"token": "{}", "a": 1}}',
    "account_key={}",
    "{{'sas': '{}'}}",
    "storage_options={{'key': 'AKIAIOSFODNN7EXAMPLE', 'secret': '{}'}}",
)


@settings(deadline=None, max_examples=60)
@given(SECRETS)
def test_no_secret_of_a_uri_comes_out(secret: str) -> None:
    for form in IN_URIS:
        assert secret not in redact(form.format(secret)), form
        assert secret not in without_credentials(form.format(secret)), form
    for form in IN_URIS + IN_PARAMETERS:
        escaped = quote(secret, safe="")
        for text in (form.format(escaped), f"Reading {form.format(escaped)} failed: no rights"):
            assert escaped not in redact(text), form
            assert escaped not in without_credentials(text), form


@settings(deadline=None, max_examples=60)
@given(SECRETS)
def test_no_error_tells_a_secret(secret: str) -> None:
    """Neither one of ours, nor one of a library, nor what is stored of it."""
    for form in IN_URIS + IN_PARAMETERS:
        hidden = secret if form in IN_URIS else quote(secret, safe="")
        uri = form.format(hidden)
        library = ConnectionError(f"GET {uri} gave 403")
        assert hidden not in str(SourceError(f"{uri} cannot be read: {library}")), form
        assert hidden not in worded(library) + describe(library), form
        assert hidden not in str(quiet(library)), form
        outer = ValueError("no rights")
        outer.__cause__ = library
        assert quiet(outer).__cause__ is None
        kept = stripped({"source": uri, "more": [f"read_parquet({uri!r})"]})
        assert hidden not in f"{kept}", form
    plain = ValueError("of width 3")
    assert quiet(plain) is plain


@settings(deadline=None, max_examples=60)
@given(st.text("abcdefXYZ0123456789+/=_-.", min_size=6, max_size=40).map(lambda s: f"S3{s}cr3T"))
def test_no_secret_of_a_header_or_setting_comes_out(secret: str) -> None:
    for form in IN_TEXT:
        assert secret not in redact(form.format(secret)), form


@settings(deadline=None, max_examples=60)
@given(SECRETS)
def test_what_a_library_makes_of_a_uri_tells_no_secret(secret: str) -> None:
    uri = f"s3://key:{secret}@bucket/a.tar?versionId=3"
    bucket, _, key = uri.partition("://")[2].partition("/")
    said = f'Invalid bucket name "{bucket}", key "{key}"; {secret}'
    assert secret not in redact(said, uri)
    for piece in (piece for piece in bucket.split(":")[1:] if len(piece) > 3 and "@" not in piece):
        assert piece not in redact(said, uri)


@pytest.mark.parametrize(
    "uri", ["s3://AKIDEXAMPLE:Sec/ret1234@bucket/a.tar", "https://u:Sec-ret1234@127.0.0.1:1/a?sig=Sig5678"]
)
def test_a_store_that_fails_tells_no_secret(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FACTORY_RETRY_SECONDS", "0")
    with pytest.raises(StoreError) as failed:
        store().info(uri)
    told = "".join(traceback.format_exception(failed.value))
    told = "\n".join(line for line in told.splitlines() if "test_redaction" not in line)
    for secret in ("ret1234", "Sig5678", "AKIDEXAMPLE"):
        assert secret not in told


def test_a_password_that_was_cut_off_is_one() -> None:
    assert redact("reading s3://key:half-of-a-sec") == "reading s3://***"
    assert redact("reading s3://key:half/of") == "reading s3://***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:sec/ret@bucket/a.tar", "s3://bucket/a.tar"),
        ("s3://bucket/path@v2/a:b@c.tar is gone", "s3://bucket/path@v2/a:b@c.tar is gone"),
        ("http://localhost:9000/bucket/a.tar", "http://localhost:9000/bucket/a.tar"),
        ("zip://a.txt::s3://k:s@bucket/b.zip", "zip://a.txt::s3://bucket/b.zip"),
        ("The token of a tokenizer is a word: 7 tokens.", "The token of a tokenizer is a word: 7 tokens."),
        ("SELECT count() FROM laion.v3 WHERE a = 'b'", "SELECT count() FROM laion.v3 WHERE a = 'b'"),
    ],
)
def test_what_is_no_secret_stays(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert without_credentials(text) == shown
    assert without_credentials("https://h/a?versionId=3&sig=x") == "https://h/a?versionId=3&sig=***"


@pytest.mark.parametrize("piece", ["a", "a:", "://", "secret=", "?a=", "a://b:", "\"'", " ://b:'"])
def test_a_megabyte_of_anything_is_read_once(piece: str) -> None:
    redact(piece * (1_000_000 // len(piece)))


def test_what_an_error_says_of_secrets_is_shown() -> None:
    said = "s3://b/x cannot be read: NoCredentialsError: Unable to locate credentials"
    assert redact(said) == said
    assert redact("CredentialError: password: hunter22") == "CredentialError: password: ***"

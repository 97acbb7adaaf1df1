"""multipart/form-data bodies, in which clients send parameters too long for a URL."""

from __future__ import annotations

import email.parser
import email.policy

from factory_lib.engine.failure import failure


def form_fields(body: bytes, content_type: str) -> dict[str, str]:
    """Plain fields of a form by name.

    Raises:
        EngineFailure: a part is a file (external tables are not supported), or the body is no form.
    """
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not form.is_multipart():
        raise failure(36, "BAD_ARGUMENTS", "The multipart body has no parts")
    fields: dict[str, str] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None or not isinstance(name, str):
            message = "External tables (files in a form) are not supported, insert into a Memory table"
            raise failure(48, "NOT_IMPLEMENTED", message)
        payload = part.get_payload(decode=True)
        fields[name] = payload.decode("utf-8", "surrogateescape") if isinstance(payload, bytes) else ""
    return fields

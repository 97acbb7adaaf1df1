"""What is said when the bucket of a data folder fails: which bucket, why, and what to do."""

from __future__ import annotations

from pathlib import Path

from factory_lib.errors import EngineError
from factory_lib.warehouse.bucket.head import Bound

_CAUSES = {
    ("expiredtoken", "token has expired", "token expired"): (
        "The credentials expired",
        "Renew them where they come from, then stop the engine, which has the old ones: factory down.",
    ),
    ("accessdenied", "access denied", "accesskeyid", "access key id", "signaturedoesnotmatch", "forbidden"): (
        "The credentials do not allow it (AccessDenied)",
        "The engine has to read, write and delete below that prefix. It takes other credentials when it starts:"
        " factory down.",
    ),
    ("nosuchbucket", "bucket does not exist"): (
        "The bucket does not exist (NoSuchBucket)",
        "Was it removed, or renamed? Does AWS_ENDPOINT_URL name the right server?",
    ),
    ("nosuchkey", "key does not exist"): (
        "An object is gone that a version needs (NoSuchKey)",
        "Does a rule of the bucket, or somebody, remove what the engine wrote? factory verify says of which versions.",
    ),
}
"""Words of an answer -> what it means, and the next step."""


def bucket_failed(home: Path, error: EngineError) -> EngineError:
    """An error of the engine that its bucket caused, with the bucket, the reason and the next step."""
    bound = Bound.of(home)
    where = bound.uri if bound else "the bucket"
    said = error.message.lower().replace("_", "")
    for words, (meaning, hint) in _CAUSES.items():
        if any(word in said for word in words):
            return EngineError(f"{meaning}: the engine asked {where}. {error.message}", hint, code=error.code)
    found = EngineError(f"{where} fails: {error.message}", "Nothing was published. Try again later.", code=error.code)
    found.is_transient = True
    return found

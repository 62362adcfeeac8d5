"""Requests that are sent again: the `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header) and
the fingerprint that tells the same request from another one. `service.submission` uses it.
"""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import Header

from jobs.contract import Idempotency, JobRequest
from service.problems import ProblemError
from service.schemas import never_null

KeyHeader = Annotated[
    str | None,
    Header(
        json_schema_extra=never_null,
        min_length=1,
        max_length=255,
        alias="Idempotency-Key",
        description="The same key with the same request gives the same job, for as long as it exists.",
    ),
]


def idempotency_of(
    key: str | None, owner: str | None, fields: str, pictures: Mapping[str, bytes]
) -> Idempotency | None:
    """Return the digests of a request with a key: of its fields as sent, and of its pictures.

    Each `owner`'s keys are its own.
    """
    if key is None:
        return None
    fingerprint = hashlib.sha256(fields.encode())
    for name, picture in sorted(pictures.items()):
        fingerprint.update(f" {name} {hashlib.sha256(picture).hexdigest()}".encode())
    owned = f"{owner or ''} {key}"
    return Idempotency(key=hashlib.sha256(owned.encode()).hexdigest(), fingerprint=fingerprint.hexdigest())


def check_same(request: JobRequest, idempotency: Idempotency | None) -> None:
    """Raise the `422` where `request` was made with the same key and is another one."""
    if request.idempotency != idempotency:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this Idempotency-Key was used for another request; a new request needs a new key",
        )

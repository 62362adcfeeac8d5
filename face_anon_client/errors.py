"""What can go wrong with a call, as exceptions. None of them holds a picture or an API key."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face_anon_client.job_state import JobState


class FaceAnonError(Exception):
    """Every error of this package; `retryable` says whether the same call may succeed another time."""

    retryable = False


class ServiceUnreachableError(FaceAnonError):
    """No answer came: the address is wrong, the service is down, or the connection broke each time."""

    retryable = True


class UnexpectedAnswerError(FaceAnonError):
    """An answer came that is none of this service's: most likely the address is another server's."""


@dataclass(frozen=True)
class InvalidField:
    """One field of a request that is wrong, and why."""

    field: str
    reason: str


class ProblemError(FaceAnonError):
    """The service refused: what its problem document (RFC 9457) says.

    `code` is stable; `title` and `detail` are for people. `request_id` finds the request in the service's
    logs. `retry_after` is in seconds, None where the service did not say. `errors` are the wrong fields.
    """

    def __init__(
        self,
        *,
        status: int,
        code: str,
        title: str,
        detail: str,
        retryable: bool,
        request_id: str | None = None,
        retry_after: float | None = None,
        errors: tuple[InvalidField, ...] = (),
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.retryable = retryable
        self.request_id = request_id
        self.retry_after = retry_after
        self.errors = errors


class InvalidRequestError(ProblemError):
    """A parameter or a picture is not what the service takes (400, 413, 415, 422)."""


class AuthenticationError(ProblemError):
    """The API key is missing, wrong, or may not do this (401, 403)."""


class JobNotFoundError(ProblemError):
    """There is no such job, or no more, or it is another key's (404)."""


class ResultExpiredError(ProblemError):
    """The picture has expired (410)."""


class RateLimitedError(ProblemError):
    """The queue is full or the key is over its limit, and still was after every retry (429)."""


class ServiceUnavailableError(ProblemError):
    """The service cannot do it at the moment, and still could not after every retry (502, 503, 504)."""


class JobFailedError(FaceAnonError):
    """The job ended without a picture; `code` is stable, `detail` is for people, `state` is the job."""

    def __init__(self, state: "JobState") -> None:
        failure = state.error
        self.state = state
        self.code = failure.code if failure else "unknown"
        self.detail = failure.detail if failure else "the service did not say why"
        self.retryable = failure.retryable if failure else False
        super().__init__(f"job {state.id} failed: {self.detail} ({self.code})")


class JobCanceledError(FaceAnonError):
    """The job was canceled, by this program or another; `state` is the job."""

    def __init__(self, state: "JobState") -> None:
        super().__init__(f"job {state.id} was canceled")
        self.state = state


class WaitTimeoutError(FaceAnonError, TimeoutError):
    """The job had not ended within the timeout of `wait`. It goes on: wait again, or cancel it."""

    retryable = True

    def __init__(self, state: "JobState", seconds: float) -> None:
        super().__init__(f"job {state.id} was still {state.status} after {seconds:g} s")
        self.state = state

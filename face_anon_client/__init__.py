"""A Python client of the face-anon service, for programs with and without asyncio.

```python
from face_anon_client import Client

with Client("http://127.0.0.1:8000") as client:
    client.anonymize("photo.jpg", d=1.25, seed=1).wait().save("out.png")
```
"""

from face_anon_client.async_client import AsyncClient, AsyncJob
from face_anon_client.calls import Parameters, Picture, SwapParameters
from face_anon_client.errors import (
    AuthenticationError,
    FaceAnonError,
    InvalidField,
    InvalidRequestError,
    JobCanceledError,
    JobFailedError,
    JobNotFoundError,
    ProblemError,
    RateLimitedError,
    ResultExpiredError,
    ServiceUnavailableError,
    ServiceUnreachableError,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from face_anon_client.job_state import Face, JobState, Status
from face_anon_client.retries import Retries
from face_anon_client.sync_client import Client, Job

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AuthenticationError",
    "Client",
    "Face",
    "FaceAnonError",
    "InvalidField",
    "InvalidRequestError",
    "Job",
    "JobCanceledError",
    "JobFailedError",
    "JobNotFoundError",
    "JobState",
    "Parameters",
    "Picture",
    "ProblemError",
    "RateLimitedError",
    "ResultExpiredError",
    "Retries",
    "ServiceUnavailableError",
    "ServiceUnreachableError",
    "Status",
    "SwapParameters",
    "UnexpectedAnswerError",
    "WaitTimeoutError",
]

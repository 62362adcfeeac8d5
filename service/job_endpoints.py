"""The HTTP endpoints under `/jobs/`: how a job stands, its picture, and its end before its time.

`service.app` makes the jobs; `jobs.store` keeps them and `service.answers` describes them.
"""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from jobs.contract import PictureFormat, Status
from jobs.store import JobRecord, JobStore
from service.answers import JobAnswer, job_answer
from service.problems import ProblemError, describe

POLL_SECONDS = 1

UNKNOWN = describe(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)


def known_job(store: JobStore, job_id: str) -> JobRecord:
    """Return the job; raises the `404` where there is none, or none any more."""
    job = store.read(job_id)
    if job is None:
        raise job_not_found()
    return job


def job_not_found() -> ProblemError:
    """Return the problem of a job that there is not, or not any more."""
    return ProblemError(HTTPStatus.NOT_FOUND, "job_not_found", "there is no such job, or no more")


def describe_job(store: JobStore, job: JobRecord, request: Request) -> JobAnswer:
    """Describe a job with the models of the live workers and links for this caller."""
    return job_answer(job, store.models(), request.scope.get("root_path", ""))


def job_routes(store: JobStore) -> APIRouter:
    """Return the endpoints over the jobs in `store`."""
    routes = APIRouter(prefix="/jobs")

    @routes.get("/{job_id}", response_model=JobAnswer, responses=UNKNOWN, summary="The job as it stands")
    def get_job(request: Request, response: Response, job_id: str) -> JobAnswer:
        """Return the job; `Retry-After` says when to ask again while it is not finished."""
        job = known_job(store, job_id)
        if not job.status.final:
            response.headers["Retry-After"] = str(POLL_SECONDS)
        return describe_job(store, job, request)

    @routes.get(
        "/{job_id}/result",
        response_class=Response,
        responses={
            200: {"content": {f.media_type: {} for f in PictureFormat}, "description": "The picture."},
            **describe(
                HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.SERVICE_UNAVAILABLE
            ),
        },
        summary="The finished picture",
    )
    def get_result(job_id: str) -> Response:
        """Return the bytes of the picture, never stored by caches."""
        job = known_job(store, job_id)
        if job.status is not Status.SUCCEEDED or job.outcome is None or job.outcome.result is None:
            detail = f"the job is {job.status}: it has no picture"
            raise ProblemError(HTTPStatus.CONFLICT, f"job_{job.status}", detail)
        picture = store.result(job_id)
        if picture is None:
            raise ProblemError(HTTPStatus.GONE, "result_expired", "the picture has expired")
        return Response(
            picture, media_type=job.outcome.result.media_type, headers={"Cache-Control": "no-store"}
        )

    @routes.post(
        "/{job_id}/cancel",
        response_model=JobAnswer,
        responses=UNKNOWN,
        summary="Cancel a queued or a running job",
    )
    def cancel_job(request: Request, job_id: str) -> JobAnswer:
        """End the job as `canceled` and erase its uploads; a worker that runs it stops at its next step.

        A job that has ended is returned as it is.
        """
        store.cancel(job_id)
        return describe_job(store, known_job(store, job_id), request)

    @routes.delete(
        "/{job_id}", status_code=HTTPStatus.NO_CONTENT, responses=UNKNOWN, summary="Erase a job now"
    )
    def delete_job(job_id: str) -> None:
        """Cancel the job and erase it with its uploads and its picture; from now on it is a `404`."""
        if not store.delete(job_id):
            raise job_not_found()

    return routes

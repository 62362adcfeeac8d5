"""`face-anon submit`: files and folders of photos through a running service, some at a time, and a report.

`cli.photos` finds them, `cli.journal` remembers how far each has come, `cli.report` says what became of them;
`face_anon_client` speaks to the service.
"""

import asyncio
import contextlib
import hashlib
import json
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from tqdm import tqdm

from cli.journal import Entry, Journal, JournalError, Stage, open_journal
from cli.photos import Photo, PlanError, find_photos
from cli.report import FAILED, NOT_DONE, Row, as_json, as_text, done_earlier, succeeded
from face_anon_client import (
    AsyncClient,
    AsyncJob,
    AuthenticationError,
    FaceAnonError,
    InvalidRequestError,
    JobCanceledError,
    JobFailedError,
    JobNotFoundError,
    JobState,
    ProblemError,
    ResultExpiredError,
    Retries,
    ServiceUnreachableError,
    UnexpectedAnswerError,
)
from face_anon_client.files import write_whole

FAILURE = 1
INTERRUPTED = 130
CANCEL_SECONDS = 10
PATIENCE = Retries(attempts=30)
"""A full queue empties at some time: photos wait for it for minutes."""


@dataclass(frozen=True)
class Submission:
    """What is to be done with every photo: `form` has the fields that were given."""

    out: Path
    url: str
    api_key_file: Path | None
    form: Mapping[str, Any]
    swap_source: Path | None
    parallel: int
    report: Path


def run_submit(paths: Sequence[Path], submission: Submission) -> int:
    """Send the photos and write their results; returns 1 where any failed, 130 after Ctrl-C, else 0."""
    try:
        photos = find_photos(paths, submission.out)
        submission.report.parent.mkdir(parents=True, exist_ok=True)
        api_key = submission.api_key_file.read_text() if submission.api_key_file else None
        identity = submission.swap_source.read_bytes() if submission.swap_source else None
        with open_journal(submission.out) as journal:
            return asyncio.run(_submit(photos, submission, api_key, identity, journal))
    except (PlanError, JournalError, OSError, ValueError) as error:
        _say(f"face-anon: {error}")
        return FAILURE


async def _submit(
    photos: Sequence[Photo],
    submission: Submission,
    api_key: str | None,
    identity: bytes | None,
    journal: Journal,
) -> int:
    started = time.monotonic()
    task = asyncio.current_task()
    assert task  # noqa: S101  a coroutine runs in one
    with contextlib.suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    bar = tqdm(
        total=len(photos),
        disable=None,
        bar_format="{percentage:3.0f}%|{bar}| {postfix} {elapsed}<{remaining}",
    )
    async with AsyncClient(submission.url, api_key, retries=PATIENCE) as client:
        run = _Run(client, submission, identity, journal, photos, bar)
        interrupted = False
        try:
            with bar:
                await run.all()
        except asyncio.CancelledError:
            interrupted = True
    rows = run.rows()
    about = {
        "service": submission.url,
        "parameters": dict(submission.form),
        "interrupted": interrupted,
        "stopped_by": str(run.stopped_by) if run.stopped_by else None,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_whole(submission.report, json.dumps(as_json(rows, **about), indent=2).encode())
    for line in as_text(rows):
        _say(line)
    if run.stopped_by:
        _say(f"stopped: {run.stopped_by}")
    if interrupted or run.stopped_by:
        _say("the same command goes on where this one stopped")
    if interrupted:
        return INTERRUPTED
    return FAILURE if any(row.status in {FAILED, NOT_DONE} for row in rows) else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


class _Run:
    """One run over the photos; `rows` has what became of each."""

    def __init__(
        self,
        client: AsyncClient,
        submission: Submission,
        identity: bytes | None,
        journal: Journal,
        photos: Sequence[Photo],
        bar: "tqdm[Any]",
    ) -> None:
        self._client = client
        self._submission = submission
        self._identity = identity
        self._journal = journal
        self._photos = photos
        self._bar = bar
        self._originals = {photo.source.resolve() for photo in photos}
        self._rows: dict[Photo, Row] = {}
        self._fractions: dict[Photo, float] = {}
        self.stopped_by: FaceAnonError | None = None

    def rows(self) -> list[Row]:
        """Return what became of each photo, in their order."""
        return [self._rows.get(photo, Row(str(photo.source), NOT_DONE)) for photo in self._photos]

    async def all(self) -> None:
        """Take the photos one after the other, `parallel` at a time."""
        waiting = iter(self._photos)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._submission.parallel):
                group.create_task(self._take(waiting))

    async def _take(self, waiting: Iterator[Photo]) -> None:
        for photo in waiting:
            if self.stopped_by:
                return
            try:
                row = await self._one(photo)
            except (AuthenticationError, ServiceUnreachableError, UnexpectedAnswerError) as error:
                self.stopped_by = error
                return
            except InvalidRequestError as error:
                if error.code == "invalid_parameter":  # every other photo would be told the same
                    self.stopped_by = error
                    return
                row = _failed(photo, error.code, error.detail)
            except OSError as error:
                row = _failed(photo, "file_error", error.strerror or str(error))
            self._rows[photo] = row
            self._show(photo, 1.0)

    async def _one(self, photo: Photo) -> Row:
        picture = await asyncio.to_thread(photo.source.read_bytes)
        fingerprint = self._fingerprint(picture)
        entry = self._journal.latest(photo.source)
        same = entry is not None and entry.fingerprint == fingerprint
        if entry and same and entry.stage is Stage.DONE and self._target(str(entry.output)).is_file():
            return done_earlier(str(photo.source), entry.row or {})
        if occupied := self._occupied(photo, entry):
            return _failed(
                photo, "output_exists", f"{occupied} is there, and was not written by an earlier run"
            )
        source = str(photo.source.resolve())
        if entry and same and entry.stage in {Stage.SUBMITTED, Stage.SAVING}:
            with contextlib.suppress(_GoneError):
                return await self._picked_up(photo, picture, entry)
        entry = Entry(source, fingerprint, str(uuid4()), Stage.SUBMITTED)
        return await self._run_job(photo, picture, self._journal.write(entry))

    async def _picked_up(self, photo: Photo, picture: bytes, entry: Entry) -> Row:
        """Go on with the job of an earlier run; raises `_GoneError` where it has no picture to give."""
        try:
            return await self._run_job(photo, picture, entry, again=True)
        except InvalidRequestError as error:
            # The service fills in its model's defaults: with another model the request is another one.
            if error.code != "idempotency_key_reused":
                raise
            raise _GoneError from error

    async def _run_job(self, photo: Photo, picture: bytes, entry: Entry, *, again: bool = False) -> Row:
        started = time.monotonic()
        submitting = asyncio.create_task(self._request(picture, entry.key))
        try:
            job = await asyncio.shield(submitting)
            await job.wait(on_progress=lambda state: self._show(photo, _fraction(state)))
            row = await self._save(photo, entry, job, started)
        except asyncio.CancelledError:
            await self._cancel(submitting, entry)
            raise
        except (JobFailedError, JobCanceledError, ResultExpiredError, JobNotFoundError) as error:
            self._journal.write(replace(entry, stage=Stage.ENDED))
            if again:
                raise _GoneError from error
            return _failed(photo, getattr(error, "code", "canceled"), getattr(error, "detail", str(error)))
        except ProblemError as error:
            if isinstance(error, InvalidRequestError | AuthenticationError):
                raise
            return _failed(photo, error.code, error.detail)
        with contextlib.suppress(FaceAnonError):  # it would expire by itself
            await job.delete()
        return row

    def _request(self, picture: bytes, key: str) -> Coroutine[Any, Any, AsyncJob]:
        form = self._submission.form
        if self._identity is None:
            return self._client.anonymize(picture, idempotency_key=key, **form)
        return self._client.swap(self._identity, picture, idempotency_key=key, **form)

    async def _save(self, photo: Photo, entry: Entry, job: AsyncJob, started: float) -> Row:
        content = await job.result()
        assert job.state.result  # noqa: S101  it has succeeded
        output = photo.output(job.state.result.media_type)
        target = self._target(output)
        entry = self._journal.write(replace(entry, stage=Stage.SAVING, output=str(output)))
        target.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(write_whole, target, content)
        row = succeeded(str(photo.source), str(target), job.state, time.monotonic() - started)
        self._journal.write(replace(entry, stage=Stage.DONE, row=asdict(row)))
        return row

    async def _cancel(self, submitting: "asyncio.Task[AsyncJob]", entry: Entry) -> None:
        """Cancel the job, also one whose answer was under way. What cannot be canceled is picked up later."""
        with contextlib.suppress(FaceAnonError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                job = await submitting
                await job.cancel()
            self._journal.write(replace(entry, stage=Stage.ENDED))

    def _target(self, output: str | Path) -> Path:
        return self._submission.out / output

    def _fingerprint(self, picture: bytes) -> str:
        pictures = [
            hashlib.sha256(part).hexdigest() for part in (self._identity, picture) if part is not None
        ]
        sent = json.dumps([dict(self._submission.form), pictures], sort_keys=True)
        return hashlib.sha256(sent.encode()).hexdigest()

    def _occupied(self, photo: Photo, entry: Entry | None) -> Path | None:
        """Return a file that must not be overwritten: an original, or one that is not this photo's result."""
        for output in photo.possible_outputs():
            target = self._target(output)
            ours = entry is not None and entry.output == str(output)
            if target.exists() and (not ours or target.resolve() in self._originals):
                return target
        return None

    def _show(self, photo: Photo, fraction: float) -> None:
        advance = fraction - self._fractions.get(photo, 0.0)
        self._fractions[photo] = fraction
        failed = sum(row.status == FAILED for row in self._rows.values())
        told = f"{len(self._rows)}/{len(self._photos)} photos" + (f", {failed} failed" if failed else "")
        self._bar.set_postfix_str(told, refresh=False)
        self._bar.update(advance)


class _GoneError(Exception):
    """The job of an earlier run has no picture to give: another is made."""


def _fraction(state: JobState) -> float:
    return state.progress.fraction if state.progress else 0.0


def _failed(photo: Photo, code: str, detail: str) -> Row:
    return Row(str(photo.source), FAILED, code=code, detail=detail)

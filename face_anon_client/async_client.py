"""The client for asyncio programs: does the steps of `flows`, and lets others run meanwhile."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx

from face_anon_client import flows
from face_anon_client.calls import (
    Address,
    Parameters,
    Picture,
    SwapParameters,
    address,
    form_of,
    read_picture,
)
from face_anon_client.files import write_whole
from face_anon_client.job_state import JobState, Status
from face_anon_client.retries import Retries

T = TypeVar("T")


class AsyncClient:
    """A face-anon service and whoever calls it; for one event loop.

    `base_url` is where the service is, the root path of a gateway included; by default `FACE_ANON_URL` in the
    environment, else `http://127.0.0.1:8000`. `api_key` is by default `FACE_ANON_API_KEY`. `timeout` is in
    seconds, of one connection, write or read. `http` brings your own proxies or certificates, and is then not
    closed. Use it in an `async with` block, or call `close`. Every method raises a `FaceAnonError`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008  frozen
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._service = _Service(http or httpx.AsyncClient(), address(base_url, api_key, timeout), retries)
        self._owns_http = http is None

    async def anonymize(
        self, image: Picture, *, idempotency_key: str | None = None, **parameters: Unpack[Parameters]
    ) -> "AsyncJob":
        """Make a job that replaces the faces in `image`.

        A request that has to be sent again makes no second job; give an `idempotency_key` of your own to say
        so across runs of your program. Raises also `OSError` where the file cannot be read.
        """
        form = form_of(parameters, Parameters)
        return await self._submit("anonymize", form, {"image": image}, idempotency_key)

    async def swap(
        self,
        source: Picture,
        driving: Picture,
        *,
        idempotency_key: str | None = None,
        **parameters: Unpack[SwapParameters],
    ) -> "AsyncJob":
        """Make a job that gives the faces in `driving` the identity of the largest face in `source`."""
        form = form_of(parameters, SwapParameters)
        return await self._submit("swap", form, {"source": source, "driving": driving}, idempotency_key)

    async def job(self, job_id: str) -> "AsyncJob":
        """Return a job made earlier, by its id."""
        flow = flows.look(f"jobs/{quote(job_id, safe='')}", self._service.retries)
        return AsyncJob(self._service, await self._service.run(flow))

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._service.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({str(self._service.address.base)!r})"

    async def _submit(
        self, target: str, form: dict[str, str], pictures: dict[str, Picture], idempotency_key: str | None
    ) -> "AsyncJob":
        read = {name: await asyncio.to_thread(read_picture, picture) for name, picture in pictures.items()}
        flow = flows.submit(target, form, read, idempotency_key, self._service.retries)
        return AsyncJob(self._service, await self._service.run(flow))


@dataclass(frozen=True)
class _Service:
    """What a client and its jobs share."""

    http: httpx.AsyncClient
    address: Address
    retries: Retries

    async def run(
        self,
        flow: Generator[flows.Step, Any, T],
        tell: Callable[[JobState], Awaitable[None]] | None = None,
    ) -> T:
        """Do the steps of a flow and return what it returns."""
        steps = _Steps(self.http, self.address)
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    if isinstance(step, flows.Tell) and tell:
                        await tell(step.state)
                    try:
                        reply = await steps.do(step)
                    except httpx.RequestError as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                await steps.aclose()


class _Steps:
    """Does the steps of one flow; holds the answer that is open."""

    def __init__(self, http: httpx.AsyncClient, address: Address) -> None:
        self._http = http
        self._address = address
        self._stream: httpx.Response | None = None
        self._lines: AsyncIterator[str] | None = None

    async def do(self, step: flows.Step) -> Any:  # noqa: ANN401  what the step gives
        """Do a step and return what came of it; raises `httpx.RequestError`."""
        match step:
            case flows.Send(call):
                return await self._http.send(self._address.request(self._http, call))
            case flows.Pause(seconds):
                await asyncio.sleep(seconds)
            case flows.OpenStream(call):
                self._stream = await self._http.send(self._address.request(self._http, call), stream=True)
                self._lines = self._stream.aiter_lines()
                return self._stream
            case flows.NextLine():
                return await anext(self._lines, None) if self._lines else None
            case flows.CloseStream():
                await self.aclose()
        return None

    async def aclose(self) -> None:
        """Close the answer that is open."""
        if self._stream:
            await self._stream.aclose()


class AsyncJob:
    """A job of a client, as it was last seen: `state` has every field."""

    def __init__(self, service: _Service, state: JobState) -> None:
        self._service = service
        self.state = state

    @property
    def id(self) -> str:
        """The job's id; `AsyncClient.job` finds it again."""
        return self.state.id

    @property
    def status(self) -> Status:
        """Where it was when last seen."""
        return self.state.status

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  as without asyncio, with an error that names the job
        on_progress: Callable[[JobState], Awaitable[None] | None] | None = None,
    ) -> Self:
        """Wait for the end, through lost connections and restarts of the service; returns the job itself.

        `on_progress`, a function or a coroutine function, is called at once and at each change. Raises
        `WaitTimeoutError` after `timeout` seconds (the job goes on), `JobFailedError` and `JobCanceledError`.
        """

        async def tell(state: JobState) -> None:
            self.state = state
            told = on_progress(state) if on_progress else None
            if told is not None:
                await told

        watched = on_progress is not None
        await self._service.run(flows.wait(self.state, timeout, self._service.retries, watched=watched), tell)
        return self

    async def refresh(self) -> Self:
        """Ask how the job stands now; returns the job itself."""
        return await self._seen(flows.look(self.state.links.self, self._service.retries))

    async def cancel(self) -> Self:
        """Cancel the job; one that has ended stays as it is. Returns the job itself."""
        return await self._seen(flows.cancel(self.state, self._service.retries))

    async def delete(self) -> None:
        """Erase every byte of the job from the service, now."""
        await self._service.run(flows.delete(self.state, self._service.retries))

    async def result(self) -> bytes:
        """Return the picture, as its file would be; waits where the job has not ended.

        Raises as `wait`, and `ResultExpiredError`.
        """
        await self.wait()
        return await self._service.run(flows.picture(self.state, self._service.retries))

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; waits where the job has not ended."""
        return await asyncio.to_thread(write_whole, Path(path), await self.result())

    async def _seen(self, flow: Generator[flows.Step, Any, JobState]) -> Self:
        self.state = await self._service.run(flow)
        return self

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r}, {self.status.value})"

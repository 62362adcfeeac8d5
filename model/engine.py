"""Many faces at once: one thread that owns the networks and advances up to `slots` faces by one denoising
step in one UNet call. Faces join at the next step when a slot is free, and leave when they are done.

`model.pipeline` hands in the faces of a photo; `model.engine_batch` holds those in the batch and
`model.engine_queue` those that wait. Faces of different photos and callers share the batch, each with its own
timestep, number of steps, randomness, degree, guidance and sampler.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from PIL import Image

from model.checkpoint import Checkpoint
from model.device import is_fatal, is_out_of_memory, release_memory, synchronize
from model.engine_batch import Batch, begin_faces, finish_faces
from model.engine_queue import FairQueue
from model.engine_run import EngineCounters, FaceRun
from model.errors import DeviceError, MemoryLimitError, StoppedError
from model.task import FaceTask, OnStep

log = logging.getLogger("face_anon.model")

TOGETHER = 2
"""How many faces are encoded, or decoded, between two steps: about a step's work each, so that the others
do not wait for long."""


class Engine:
    """Owns a checkpoint's networks and makes faces with them, up to `slots` at once, in a thread of its own.

    `submit` may be called from any thread, also before `start`. The engine is fair: a free slot goes to the
    waiting job with the fewest faces in the batch, and where none is free and a job has no face in the batch,
    another with several pauses one. With `fair=False`, first come is first served.

    A face's result does not depend on who rides along but for rounding, as kernels choose their blocking by
    the size of the batch; with `exact`, each row is computed alone, and bytes are the same in any company.
    `together` is how many newcomers are encoded, and finished faces decoded, between two steps.

    Where memory runs out, slots are halved and the faces go on from where they were; only a face that does
    not fit alone fails. Where the device fails, every face ends with `DeviceError`, `failed` from then on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        slots: int,
        fair: bool = True,
        exact: bool = False,
        together: int = TOGETHER,
    ) -> None:
        self.checkpoint = checkpoint
        self.failed: DeviceError | None = None
        self._slots = slots
        self._fair = fair
        self._together = 1 if exact else together
        self._rows_per_call = 1 if exact else None
        self._batch: Batch | None = None
        self._live: list[FaceRun] = []
        self._leaving: list[FaceRun] = []
        self._waiting: FairQueue[FaceRun] = FairQueue(fair=fair)
        self._changed = threading.Condition()
        self._closing = False
        self._counters = EngineCounters(slots=slots)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> "Engine":
        """Start to work; a context manager does this and `close`."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop after the step in hand, for good; what is not done ends with `StoppedError`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> "Engine":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def submit(self, task: FaceTask, *, job: str, on_step: OnStep | None = None) -> FaceRun:
        """Let a face of `job` wait for a slot.

        `on_step` is called in the engine's thread with (steps done, steps), before each step and after the
        last; what it raises ends the face before its next step. It holds up the whole batch: it must return
        at once, and do no input or output.

        Raises `DeviceError` where the engine has failed, `StoppedError` where it is closed.
        """
        run = FaceRun(task, job, on_step)
        with self._changed:
            if self.failed:
                raise self.failed
            if self._closing:
                raise StoppedError("the engine is closed")
            self._waiting.add(run)
            self._changed.notify_all()
        return run

    def warm_up(self) -> None:
        """Make one grey face, so that no caller waits for kernels to be chosen and memory to grow."""
        side = self.checkpoint.resolution
        grey = Image.new("RGB", (side, side), (127, 127, 127))
        task = FaceTask(grey, None, seed=0, degree=1.0, steps=1, guidance_scale=2.0)
        self.submit(task, job="warm-up").result()

    def counters(self) -> EngineCounters:
        """Return what has been done so far; takes no time worth speaking of."""
        with self._changed:
            return replace(
                self._counters, slots=self._slots, live=len(self._live), waiting=len(self._waiting)
            )

    def _run(self) -> None:
        error: Exception = StoppedError("the engine was closed")
        try:
            self._build_batch()
            while self._has_work():
                begun = time.perf_counter()
                self._turn()
                self._count(busy_seconds=time.perf_counter() - begun)
        except Exception as cause:  # of the device, or of ours: nothing can be made any more
            log.exception("the engine has failed")
            error = DeviceError(f"the engine has failed: {cause}")
            error.__cause__ = cause
        self._end(error)

    def _has_work(self) -> bool:
        """Wait for faces; False where the engine is to close."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._live or self._leaving or len(self._waiting))
            return not self._closing

    def _end(self, error: Exception) -> None:
        with self._changed:
            if isinstance(error, DeviceError):
                self.failed = error
            self._closing = True
            unfinished = [*self._live, *self._leaving, *self._waiting]
            self._live, self._leaving = [], []
            self._waiting = FairQueue()
        for run in unfinished:
            ended = type(error)(*error.args)  # each thread raises one of its own
            ended.__cause__ = error.__cause__
            run.fail(ended)

    def _turn(self) -> None:
        """Bring everything one step further: the leaving, the newcomers, and the batch."""
        self._drop_canceled()
        self._decode()
        self._admit()
        for run in list(self._live):
            self._tell(run)
        self._drop_canceled()  # what a callback has canceled makes no other step
        if self._live:
            self._step()

    def _drop_canceled(self) -> None:
        with self._changed:
            dropped = [run for run in self._waiting if run.canceled]
            for run in dropped:
                self._waiting.remove(run)
        dropped += [run for run in self._leaving if run.canceled]
        self._leaving = [run for run in self._leaving if not run.canceled]
        for run in [run for run in self._live if run.canceled]:
            self._leave(run)
            dropped.append(run)
        for run in dropped:
            run.fail(StoppedError("the face was canceled"))

    def _tell(self, run: FaceRun) -> bool:
        """Call back; False where the face has ended with what was raised."""
        try:
            run.tell()
        except Exception as error:  # noqa: BLE001  raised again where the result is asked for
            self._leave(run)
            run.fail(error)
            return False
        return True

    def _admit(self) -> None:
        """Let faces in, as many as there are slots and as `together` allows."""
        runs: list[FaceRun] = []
        self._make_room()
        with self._changed:
            jobs = Counter(run.job for run in self._live)
            # Faces that wait to be decoded hold memory too: they must not pile up.
            while (
                len(self._live) + len(runs) < self._slots
                and len(runs) < self._together
                and len(self._leaving) <= self._together
                and (run := self._waiting.pop(jobs))
            ):
                jobs[run.job] += 1
                runs.append(run)
        if runs:
            self._prepare(runs)

    def _make_room(self) -> None:
        """Where a job without any face in the batch waits in vain, pause one of the job that has the most."""
        if not self._fair or len(self._live) < self._slots:
            return
        jobs = Counter(run.job for run in self._live)
        with self._changed:
            waiting = self._waiting.next_job(jobs)
        job, most = jobs.most_common(1)[0]
        if waiting is not None and jobs[waiting] == 0 and most > 1:
            self._pause(min((run for run in self._live if run.job == job), key=_done))

    def _prepare(self, runs: Sequence[FaceRun]) -> None:
        """Encode faces that are new, and let all join; one that fails does not take another with it."""
        try:
            with self._timed("encode_seconds"):
                new = [run for run in runs if run.face is None]
                faces = begin_faces(self.checkpoint, [run.task for run in new], self._together)
            with self._timed("reference_seconds"):
                begun = iter(faces)
                joining = [run.face or next(begun) for run in runs]
                self._in_batch.join(joining)
        except Exception as error:  # noqa: BLE001  it is the faces'
            if is_out_of_memory(error) and self._relieve(error, preparing=True):
                with self._changed:
                    for run in reversed(runs):
                        self._waiting.add(run, first=True)
            elif len(runs) == 1 or is_fatal(error):
                self._fail(runs, error)
            else:
                for run in runs:
                    self._prepare([run])
            return
        for run, face in zip(runs, joining, strict=True):
            run.face = face
        with self._changed:
            self._live += runs

    def _step(self) -> None:
        before = self._in_batch.unet_seconds
        try:
            with self._timed("step_seconds"):
                self._in_batch.step()
        except Exception as error:  # noqa: BLE001  it is the faces'
            if not (is_out_of_memory(error) and self._relieve(error, preparing=False)):
                failed = list(self._live)
                for run in failed:
                    self._leave(run)
                self._fail(failed, error)
            return
        self._count(steps=1, face_steps=len(self._live), unet_seconds=self._in_batch.unet_seconds - before)
        for run in list(self._live):
            if run.face and run.face.sampler.finished and self._tell(run):
                self._leave(run)
                self._leaving.append(run)

    def _decode(self) -> None:
        """Finish some of the faces that have left the batch."""
        runs = self._leaving[: self._together]
        if not runs:
            return
        try:
            with self._timed("decode_seconds"):
                images = finish_faces(self.checkpoint, [run.face for run in runs if run.face])
        except Exception as error:  # noqa: BLE001  it is the faces'
            if not (is_out_of_memory(error) and self._relieve(error, preparing=True)):
                del self._leaving[: len(runs)]
                self._fail(runs, error)
            return
        del self._leaving[: len(runs)]
        self._count(faces_done=len(runs))
        for run, image in zip(runs, images, strict=True):
            run.succeed(image)

    def _leave(self, run: FaceRun) -> None:
        if run.face:
            self._in_batch.leave(run.face)
        with self._changed:
            self._live.remove(run)

    def _pause(self, run: FaceRun) -> None:
        """Take a face out of the batch that goes on later: with all its state but keys and values."""
        self._leave(run)
        self._count(paused=1)
        with self._changed:
            self._waiting.add(run, first=True)

    def _relieve(self, error: Exception, *, preparing: bool) -> bool:
        """Take less memory from now on; False where there is nothing left to give up.

        Newcomers and leavers come in smaller groups first. Then the slots are halved, with the buffers of
        keys and values; the last thing to split is the two rows of a single face.
        """
        if preparing and self._together > 1:
            self._together //= 2
        elif self._slots > 1:
            for run in reversed(self._live[:]):
                self._pause(run)
            self._slots //= 2
            self._build_batch()
        elif self._rows_per_call != 1:
            self._rows_per_call = self._in_batch.rows_per_call = 1
        else:
            return False
        release_memory(self.checkpoint.device)
        log.warning(
            "out of memory (%s): going on with %d slots, %d newcomers at once, %s row(s) a call",
            *(error, self._slots, self._together, self._rows_per_call or "all"),
        )
        return True

    def _build_batch(self) -> None:
        """Allocate the buffers, of fewer slots where they do not fit."""
        self._batch = None
        while self._batch is None:
            release_memory(self.checkpoint.device)
            try:
                self._batch = Batch(self.checkpoint, self._slots, self._rows_per_call)
            except Exception as error:
                if not is_out_of_memory(error) or self._slots == 1:
                    raise
                self._slots //= 2
                log.warning("out of memory (%s): %d slots", error, self._slots)

    @property
    def _in_batch(self) -> Batch:
        if self._batch is None:
            raise RuntimeError("the engine has no batch before it runs")
        return self._batch

    def _fail(self, runs: Sequence[FaceRun], error: Exception) -> None:
        """End faces with an error; one of the device is everybody's."""
        if is_out_of_memory(error):
            sentence = f"the device has too little memory even for a single face: {error}"
            limit = MemoryLimitError(sentence)
            limit.__cause__ = error
            error = limit
        self._count(faces_failed=len(runs))
        if is_fatal(error):
            with self._changed:  # they end with all others
                for run in runs:
                    self._waiting.add(run)
            raise error
        for run in runs:
            run.fail(error)

    def _count(self, **more: float) -> None:
        with self._changed:
            counted = {name: getattr(self._counters, name) + amount for name, amount in more.items()}
            self._counters = replace(self._counters, **counted)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        synchronize(self.checkpoint.device)
        self._count(**{name: time.perf_counter() - begun})


def _done(run: FaceRun) -> int:
    return run.face.sampler.done if run.face else 0

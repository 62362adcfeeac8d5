"""What callers of `model.engine` hold: a face on its way through it, and the counters of its work."""

from concurrent.futures import Future
from dataclasses import dataclass

from PIL import Image

from model.engine_batch import Denoising
from model.task import FaceTask, OnStep


class FaceRun:
    """A face on its way through the engine, as whoever submitted it sees it."""

    def __init__(self, task: FaceTask, job: str, on_step: OnStep | None) -> None:
        self.task = task
        self.job = job
        self.face: Denoising | None = None
        """The engine's: its state, from its first turn on."""
        self.canceled = False
        self._on_step = on_step
        self._told = -1
        self._future: Future[Image.Image] = Future()

    def result(self, timeout: float | None = None) -> Image.Image:
        """Wait for the finished face, an RGB image of the model's resolution.

        Raises what `on_step` raised; `StoppedError` where the face was canceled or the engine closed;
        `MemoryLimitError`, `DeviceError` and whatever the networks raise; `TimeoutError` after `timeout`
        seconds.
        """
        return self._future.result(timeout)

    def done(self) -> bool:
        """Tell whether `result` would return or raise at once."""
        return self._future.done()

    def cancel(self) -> None:
        """Let the face leave before the next step; `result` then raises `StoppedError`."""
        self.canceled = True

    def tell(self) -> None:
        """Call back where steps have been done since the last time; the engine does."""
        done = self.face.sampler.done if self.face else 0
        if self._on_step and done > self._told:
            self._told = done
            self._on_step(done, self.task.steps)

    def succeed(self, image: Image.Image) -> None:
        """End with a finished face; the engine does."""
        self._future.set_result(image)

    def fail(self, error: BaseException) -> None:
        """End with an error; the engine does."""
        self._future.set_exception(error)


@dataclass(frozen=True)
class EngineCounters:
    """What an engine has done since it started, and where it stands; times in seconds."""

    slots: int
    """How many faces fit into the batch; fewer than asked for where memory has run out."""
    live: int = 0
    """Faces in the batch."""
    waiting: int = 0
    """Faces that wait for a slot."""
    steps: int = 0
    """Times that the batch was advanced."""
    face_steps: int = 0
    """Steps of all faces together: of `steps * slots`, the part that was occupied."""
    faces_done: int = 0
    faces_failed: int = 0
    """Faces that ended with an error; a canceled one is not counted."""
    paused: int = 0
    """Times that a face made room, for a job without any or where memory ran out."""
    encode_seconds: float = 0.0
    reference_seconds: float = 0.0
    step_seconds: float = 0.0
    """Advancing the batch; of it, `unet_seconds` are the network's."""
    unet_seconds: float = 0.0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0
    """All of the above and everything between."""

    @property
    def occupancy(self) -> float:
        """The part of the slots that is live, 0 to 1."""
        return self.live / self.slots

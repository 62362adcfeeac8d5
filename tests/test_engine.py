"""The engine: faces that share a batch come out as they do alone, whoever joins, leaves, fails or hurries."""

import copy
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Reference
from PIL import Image

from model.checkpoint import Checkpoint
from model.engine import Engine
from model.engine_batch import Batch, begin_faces
from model.errors import DeviceError, MemoryLimitError, StoppedError
from model.task import FaceTask, Sampler

WAIT = 300  # seconds, for results: far more than they take


def mixed_tasks(
    reference: Reference, count: int, *, guidance: Sequence[float] = (4.0, 1.0)
) -> list[FaceTask]:
    """Return faces that differ in everything a face can differ in."""
    return [
        FaceTask(
            driving=reference.driving if index % 4 else reference.source,
            source=reference.source if index % 5 == 1 else None,
            seed=index,
            degree=(index % 7) / 5,
            steps=1 + index % 3,
            guidance_scale=guidance[index % len(guidance)],
            sampler=list(Sampler)[index % 4],
        )
        for index in range(count)
    ]


def make_all(checkpoint: Checkpoint, tasks: Sequence[FaceTask], **options: Any) -> list[np.ndarray]:
    """Make faces with an engine, in three jobs; returns their pixels."""
    with Engine(checkpoint, **options) as engine:
        runs = [engine.submit(task, job=f"job {index % 3}") for index, task in enumerate(tasks)]
        return [np.asarray(run.result(WAIT)).astype(int) for run in runs]


# ruff: noqa: ANN401  a stand-in takes what the network it stands for takes


class Watched:
    """A network that calls `before`, which may raise, before it computes; takes the place of another."""

    def __init__(self, network: Any, before: Callable[..., None]) -> None:
        self._network = network
        self._before = before

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Compute, if nothing is raised."""
        self._before(*args)
        return self._network(*args, **options)

    def decode(self, latents: torch.Tensor) -> Any:
        """Decode, where it is a VAE."""
        self._before(latents)
        return self._network.decode(latents)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def most_rows(most: int) -> Callable[..., None]:
    """Return a check that memory is there for so many rows at once."""

    def check(rows: torch.Tensor, *_: Any) -> None:
        if rows.shape[0] > most:
            raise MemoryError(f"no memory for {rows.shape[0]} rows")

    return check


def fails_at(error: Callable[[], Exception], *calls: int) -> Callable[..., None]:
    """Return a check that raises at those of its calls, counted from 1."""
    count = 0

    def check(*_: Any) -> None:
        nonlocal count
        count += 1
        if count in calls:
            raise error()

    return check


def test_fifty_mixed_faces_are_the_same_in_any_batch(tiny: Checkpoint, reference: Reference) -> None:
    """Steps, d, seeds, guidance and samplers mixed, in 1, 4 and 8 slots: in exact mode to the last bit."""
    tasks = mixed_tasks(reference, 50)
    alone = make_all(tiny, tasks, slots=1, exact=True)
    for slots in (4, 8):
        together = make_all(tiny, tasks, slots=slots, exact=True)
        assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_one_call_for_all_differs_by_rounding_only(tiny: Checkpoint, reference: Reference) -> None:
    """Of faces that share the UNet's calls: within two grey levels in float32 without guidance, which makes
    these random networks chaotic (see test_reference), and within one in float64 with it.
    """
    tasks = mixed_tasks(reference, 12, guidance=(1.0,))
    for alone, shared in zip(make_all(tiny, tasks, slots=1), make_all(tiny, tasks, slots=8), strict=True):
        assert np.abs(alone - shared).max() <= 2
    names = ("unet", "referencenet", "conditioning_referencenet", "image_encoder", "vae")
    networks = {name: copy.deepcopy(getattr(tiny, name)).double() for name in names}
    precise = dataclasses.replace(tiny, dtype=torch.float64, **networks)
    tasks = mixed_tasks(reference, 12)
    for alone, shared in zip(
        make_all(precise, tasks, slots=1), make_all(precise, tasks, slots=8), strict=True
    ):
        assert np.abs(alone - shared).max() <= 1


STEPS = 3


@pytest.mark.parametrize("first", [True, False])
def test_joining_and_leaving_at_any_step_changes_nothing(
    tiny: Checkpoint, reference: Reference, first: bool
) -> None:
    """A face is the same to the last bit, whenever another joins or leaves, before or after it."""

    def final(join_at: int | None, leave_at: int) -> torch.Tensor:
        task = FaceTask(reference.driving, None, 1, 1.2, STEPS, 4.0)
        other = FaceTask(reference.source, reference.driving, 2, 0.0, 10, 4.0 if join_at == 1 else 1.0)
        face, guest = begin_faces(tiny, [task, other], together=1)
        batch = Batch(tiny, slots=2, rows_per_call=1)
        if not first:
            batch.join([face])
        for step in range(STEPS):
            if step == join_at:
                batch.join([guest])
            if first and step == 0:
                batch.join([face])
            if step == leave_at and guest in batch.faces:
                batch.leave(guest)
            batch.step()
        assert face.sampler.finished
        return face.latents

    alone = final(None, 0)
    for join_at in (0,) if first else range(STEPS):
        for leave_at in range(join_at, STEPS + 1):
            assert torch.equal(final(join_at, leave_at), alone), (join_at, leave_at)


@pytest.mark.parametrize("at", range(STEPS + 1))
def test_a_canceled_face_leaves_within_a_step(tiny: Checkpoint, reference: Reference, at: int) -> None:
    """Canceled, or stopped by its callback, at each step: no other step is made, and the others go on."""
    tasks = mixed_tasks(reference, 3)
    expected = make_all(tiny, tasks, slots=8, exact=True)
    seen: dict[str, list[int]] = {"canceled": [], "stopped": []}
    task = FaceTask(reference.driving, None, 1, 1.2, STEPS, 4.0)
    with Engine(tiny, slots=8, exact=True) as engine:
        started = threading.Event()

        def cancel(done: int, _steps: int) -> None:
            started.wait(WAIT)
            seen["canceled"].append(done)
            if done == at:
                canceled.cancel()

        def stop(done: int, _steps: int) -> None:
            seen["stopped"].append(done)
            if done == at:
                raise ValueError("the caller's own")

        canceled = engine.submit(task, job="canceled", on_step=cancel)
        started.set()
        stopped = engine.submit(task, job="stopped", on_step=stop)
        runs = [engine.submit(each, job="others") for each in tasks]
        with pytest.raises(StoppedError, match="canceled"):
            canceled.result(WAIT)
        with pytest.raises(ValueError, match="the caller's own"):
            stopped.result(WAIT)
        found = [np.asarray(run.result(WAIT)).astype(int) for run in runs]
    assert seen == {"canceled": list(range(at + 1)), "stopped": list(range(at + 1))}
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_face_is_canceled_before_it_begins(tiny: Checkpoint, reference: Reference) -> None:
    """It waits no longer, and is never called back."""
    seen: list[int] = []
    engine = Engine(tiny, slots=1)
    (task,) = mixed_tasks(reference, 1)
    run = engine.submit(task, job="one", on_step=lambda done, _steps: seen.append(done))
    run.cancel()
    with engine:
        with pytest.raises(StoppedError):
            run.result(WAIT)
        assert engine.counters().waiting == 0
    assert seen == []


def test_closing_ends_what_is_not_done(tiny: Checkpoint, reference: Reference) -> None:
    """Nobody waits for ever, and nothing is taken any more."""
    task = FaceTask(reference.driving, None, 1, 1.2, 1000, 4.0)
    with Engine(tiny, slots=1) as engine:
        runs = [engine.submit(task, job="one") for _ in range(3)]
    for run in runs:
        with pytest.raises(StoppedError, match="closed"):
            run.result(WAIT)
    with pytest.raises(StoppedError, match="closed"):
        engine.submit(task, job="one")


@pytest.mark.parametrize("network", ["unet", "referencenet", "vae"])
def test_out_of_memory_halves_the_batch_and_the_faces_go_on(
    tiny: Checkpoint, reference: Reference, network: str
) -> None:
    """Memory that runs out in any stage: every face is the same to the last bit as if it had not, so that no
    noise was drawn twice, and the batch is smaller from then on.
    """
    tasks = mixed_tasks(reference, 6)
    expected = make_all(tiny, tasks, slots=4, exact=True)
    watched = Watched(getattr(tiny, network), fails_at(MemoryError, 2, 3))
    crowded = dataclasses.replace(tiny, **{network: watched})
    with Engine(crowded, slots=4, exact=True) as engine:
        runs = [engine.submit(task, job=str(index % 3)) for index, task in enumerate(tasks)]
        found = [np.asarray(run.result(WAIT)).astype(int) for run in runs]
        assert engine.counters().slots == 1
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize(("most", "slots"), [(4, 2), (3, 1), (1, 1)])
def test_nothing_fails_that_fits_alone(tiny: Checkpoint, reference: Reference, most: int, slots: int) -> None:
    """Of guided faces, which take two rows, as many go on as fit; one alone may be split into its rows."""
    crowded = dataclasses.replace(tiny, unet=Watched(tiny.unet, most_rows(most)))
    task = FaceTask(reference.driving, None, 1, 1.2, 3, 4.0)
    with Engine(crowded, slots=4) as engine:
        runs = [engine.submit(task, job="one") for _ in range(5)]
        assert all(run.result(WAIT).size == (64, 64) for run in runs)
        assert engine.counters().slots == slots


def test_what_does_not_fit_alone_fails_alone(tiny: Checkpoint, reference: Reference) -> None:
    """It says so, and the engine lives on."""
    crowded = dataclasses.replace(tiny, unet=Watched(tiny.unet, fails_at(MemoryError, 1, 2, 3)))
    with Engine(crowded, slots=2) as engine:
        (task,) = mixed_tasks(reference, 1)
        with pytest.raises(MemoryLimitError, match="even for a single face"):
            engine.submit(task, job="one").result(WAIT)
        assert engine.submit(task, job="one").result(WAIT).size == (64, 64)
        assert engine.failed is None


def test_a_failed_device_is_everybodys(tiny: Checkpoint, reference: Reference) -> None:
    """Every face ends with it, in the batch or waiting; the engine says so and takes no other."""

    def error() -> Exception:
        return torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    broken = dataclasses.replace(tiny, unet=Watched(tiny.unet, fails_at(error, 3)))
    task = FaceTask(reference.driving, None, 1, 1.2, 100, 4.0)
    with Engine(broken, slots=2) as engine:
        runs = [engine.submit(task, job=str(index)) for index in range(5)]
        for run in runs:
            with pytest.raises(DeviceError, match="illegal memory access"):
                run.result(WAIT)
        with pytest.raises(DeviceError, match="illegal memory access"):
            engine.submit(task, job="one")
        assert isinstance(engine.failed, DeviceError)


def test_a_broken_picture_fails_alone(tiny: Checkpoint, reference: Reference) -> None:
    """A newcomer that cannot be encoded does not take another down that came with it."""
    good, bad = mixed_tasks(reference, 2)
    broken = Image.new("RGB", (8, 8))
    broken.close()
    engine = Engine(tiny, slots=2)
    runs = [
        engine.submit(task, job="one")
        for task in (dataclasses.replace(bad, driving=broken, source=None), good)
    ]
    with engine:
        with pytest.raises(ValueError, match="closed"):
            runs[0].result(WAIT)
        assert runs[1].result(WAIT).size == (64, 64)


@pytest.mark.parametrize(("fair", "most_steps_of_others"), [(True, 4), (False, 18)])
def test_a_photo_of_many_faces_does_not_hold_up_one(
    tiny: Checkpoint, reference: Reference, fair: bool, most_steps_of_others: int
) -> None:
    """A face that comes while six of a photo are made, two at a time, is in the batch within a step of each;
    where first come is first served, it waits for all of their steps. The photo's faces do not change by it.
    """
    big = FaceTask(reference.driving, None, 1, 1.2, 3, 1.0)
    order: list[str] = []
    late: list[Any] = []
    engine = Engine(tiny, slots=2, fair=fair, exact=True)

    def on_big_step(done: int, _steps: int) -> None:
        if not late and done == 1:
            order.clear()
            late.append(engine.submit(big, job="small", on_step=lambda *_: order.append("small")))
        if done:
            order.append("big")

    runs = [engine.submit(big, job="big", on_step=on_big_step) for _ in range(6)]
    with engine:
        images = [run.result(WAIT).tobytes() for run in (*runs, *late)]
    waited = order.index("small")
    assert waited <= most_steps_of_others
    if not fair:
        assert waited > 15
    assert len(set(images)) == 1
    assert engine.counters().paused == (1 if fair else 0)


@pytest.mark.parametrize(("fair", "expected"), [(True, "ababab"), (False, "aaabbb")])
def test_equal_jobs_take_turns(tiny: Checkpoint, reference: Reference, fair: bool, expected: str) -> None:
    """With one slot, two photos of three faces alternate; where first come is first served, they do not."""
    task = FaceTask(reference.driving, None, 1, 1.2, 1, 1.0)
    order: list[str] = []
    engine = Engine(tiny, slots=1, fair=fair)

    def begun(job: str) -> Callable[[int, int], None]:
        return lambda done, _steps: None if done else order.append(job)

    runs = [engine.submit(task, job=job, on_step=begun(job)) for job in "aaabbb"]
    with engine:
        for run in runs:
            run.result(WAIT)
    assert "".join(order) == expected


def test_counters_count(tiny: Checkpoint, reference: Reference) -> None:
    """Steps, faces and times add up to what was done."""
    tasks = mixed_tasks(reference, 6)
    with Engine(tiny, slots=3) as engine:
        for run in [engine.submit(task, job="one") for task in tasks]:
            run.result(WAIT)
        counters = engine.counters()
    assert counters.faces_done == 6
    assert counters.face_steps == sum(task.steps for task in tasks)
    assert counters.face_steps / 3 <= counters.steps <= counters.face_steps
    assert (counters.live, counters.waiting, counters.occupancy) == (0, 0, 0.0)
    parts = (
        counters.encode_seconds,
        counters.reference_seconds,
        counters.step_seconds,
        counters.decode_seconds,
    )
    assert all(seconds > 0 for seconds in parts)
    assert counters.unet_seconds < counters.step_seconds

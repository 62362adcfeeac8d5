"""The engine on this machine: faces per second against slots, its own share of a step, what a small photo
waits for behind a large one, and memory over many jobs.

Run as `python -m bench.engine [CHECKPOINT] [--device cuda] [--dtype auto] [--slots 1 2 4 8] [--steps 20]`, by
default with the checkpoint that ships, and on a GPU where there is one; `--full` makes one of full size with
random weights (6 GB) and measures that.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from model.checkpoint import Checkpoint, load_checkpoint
from model.device import choose_precision, prepare_device
from model.engine import Engine
from model.engine_run import EngineCounters, FaceRun
from model.random_checkpoint import FULL, make_checkpoint
from model.task import FaceTask

ROOT = Path(__file__).parent.parent
SMALL = ROOT / "model" / "checkpoints" / "small"
PHOTO = ROOT / "samples" / "astronaut.png"
CROWD = 20


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path, nargs="?", default=SMALL)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the UNet, with CUDA graphs on CUDA")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=500, help="jobs of the memory table; 0 leaves it out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="face-anon-bench-") as temporary:
        folder = options.checkpoint
        if options.full:
            folder = Path(temporary) / "full"
            make_checkpoint(folder, FULL, dtype=torch.bfloat16, seed=1)
        precision = choose_precision(options.dtype, options.device)
        checkpoint = load_checkpoint(folder, precision=precision, device=options.device)
        prepare_device(checkpoint, compiled=options.compile)
        print(
            f"{checkpoint.name} at {checkpoint.resolution} px, {precision} on {options.device}, "
            f"{torch.get_num_threads()} CPU thread(s), guided, {options.steps} ddpm steps"
        )
        for exact in (False, True):
            print_throughput(checkpoint, options.slots, options.steps, exact=exact)
        if not options.full:
            print_waiting(checkpoint, options.steps)
        if options.jobs and not options.full:
            print_memory(checkpoint, options.jobs)


def print_throughput(checkpoint: Checkpoint, slots: list[int], steps: int, *, exact: bool) -> None:
    """Print faces per second by slots, each with twice as many faces as slots."""
    print("each row in a call of its own (exact)" if exact else "all rows in one call")
    print(f"{'slots':>6} {'faces/s':>9} {'gain':>6} {'s/step':>8} {'engine':>8} {'encode':>8} {'decode':>8}")
    first = 0.0
    for count in slots:
        with Engine(checkpoint, slots=count, exact=exact) as engine:
            engine.warm_up()
            before, started = engine.counters(), time.perf_counter()
            for run in [submit(engine, f"job {index}", steps) for index in range(2 * count)]:
                run.result()
            took, after = time.perf_counter() - started, engine.counters()
        speed = 2 * count / took
        first = first or speed
        encode = spent(before, after, "encode") + spent(before, after, "reference")
        print(
            f"{count:6} {speed:9.3f} {speed / first:5.2f}x "
            f"{spent(before, after, 'step') / taken(before, after):8.4f} {overhead(before, after):8.2%} "
            f"{encode / took:8.1%} {spent(before, after, 'decode') / took:8.1%}",
            flush=True,
        )


def submit(engine: Engine, job: str, steps: int) -> FaceRun:
    """Submit one guided face."""
    task = FaceTask(Image.open(PHOTO), None, seed=1, degree=1.25, steps=steps, guidance_scale=4.0)
    return engine.submit(task, job=job)


def spent(before: EngineCounters, after: EngineCounters, stage: str) -> float:
    """Return the seconds between two counts that a stage took."""
    name = f"{stage}_seconds"
    return float(getattr(after, name) - getattr(before, name))


def taken(before: EngineCounters, after: EngineCounters) -> int:
    """Return the steps of the batch between two counts."""
    return after.steps - before.steps


def overhead(before: EngineCounters, after: EngineCounters) -> float:
    """Return the part of stepping that is not the UNet's: sampler, guidance, queue, callbacks, copies."""
    others = sum(spent(before, after, stage) for stage in ("encode", "reference", "decode"))
    stepping = spent(before, after, "busy") - others
    return 1 - spent(before, after, "unet") / stepping


def print_waiting(checkpoint: Checkpoint, steps: int) -> None:
    """Print how long a photo of one face takes that comes right after one of twenty, four faces at a time."""
    print(f"a photo of one face right behind one of {CROWD}, 4 slots:")
    for fair in (True, False):
        with Engine(checkpoint, slots=4, fair=fair) as engine:
            engine.warm_up()
            alone = time.perf_counter()
            submit(engine, "alone", steps).result()
            alone = time.perf_counter() - alone
            crowd = [submit(engine, "crowd", steps) for _ in range(CROWD)]
            started = time.perf_counter()
            submit(engine, "small", steps).result()
            small = time.perf_counter() - started
            for run in crowd:
                run.result()
            large = time.perf_counter() - started
        name = "fair" if fair else "first come, first served"
        print(f"  {name}: {small:.2f} s, the large one {large:.2f} s; alone on the machine {alone:.2f} s")


def print_memory(checkpoint: Checkpoint, jobs: int) -> None:
    """Print this process's memory while jobs of two faces, of two steps each, go through."""
    print(f"resident memory over {jobs} jobs, 4 slots:")
    readings: list[float] = []
    with Engine(checkpoint, slots=4) as engine:
        for first in range(0, jobs, 50):
            count = min(50, jobs - first)
            runs = [submit(engine, f"job {first + index // 2}", 2) for index in range(2 * count)]
            for run in runs:
                run.result()
            readings.append(resident())
            print(f"  {first + count:4} jobs: {readings[-1]:7.1f} MB", flush=True)
    half = len(readings) // 2 or 1
    growth = statistics.median(readings[half:] or readings) - statistics.median(readings[:half])
    print(f"  second half against the first: {growth:+.1f} MB (median)")


def resident() -> float:
    """Return this process's resident memory in MB, or the allocated memory of a GPU where one is used."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

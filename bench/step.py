"""The network at full size on this machine, with random weights in bfloat16: a guided step against the
straightforward one, the memory that loading takes, and two steps through the command line.

Run as `python -m bench.step [FOLDER]`; without a folder of an earlier run it makes one (6 GB) and removes it.
"""

import copy
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.straightforward import install_straightforward, straightforward_conditioning
from model.attention import install_joining
from model.checkpoint import Checkpoint, Precision, load_checkpoint
from model.conditioning import Conditioning, condition, encode_images
from model.engine_batch import begin_faces
from model.random_checkpoint import FULL, make_checkpoint
from model.sampling import draw_noise, guide, predict
from model.task import FaceTask

ROOT = Path(__file__).parent.parent
PAIRS = 3
GIGA = 1e9
GUIDANCE_SCALE = 4.0
DEGREE = 1.25
TIMESTEP = 996


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="face-anon-bench-") as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "full"
        if not folder.exists():
            started = time.monotonic()
            make_checkpoint(folder, FULL, dtype=torch.bfloat16, seed=1)
            print(f"made a full-size checkpoint, {_size(folder) / GIGA:.2f} GB: {_since(started)}")
        checkpoint = _load(folder)
        _compare_steps(checkpoint)
        del checkpoint
        _run_command_line(folder, Path(temporary))


def _load(folder: Path) -> Checkpoint:
    """Load while watching the memory that is ours: private pages, without the file cache."""
    before, largest, done = _private_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.01):
            largest = max(largest, _private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    checkpoint = load_checkpoint(folder, precision=Precision.BFLOAT16)
    took = _since(started)
    done.set()
    watcher.join()
    networks = [
        sum(parameter.nbytes for parameter in network.parameters())
        for network in (
            checkpoint.unet,
            checkpoint.referencenet,
            checkpoint.conditioning_referencenet,
            checkpoint.vae,
            checkpoint.image_encoder,
        )
    ]
    peak = largest - before
    print(
        f"loading: {took}, networks {sum(networks) / GIGA:.2f} GB, "
        f"the largest {max(networks) / GIGA:.2f} GB, "
        f"peak of private memory {peak / GIGA:.2f} GB (weights stay mapped from their files)"
    )
    return checkpoint


@torch.inference_mode()
def _compare_steps(checkpoint: Checkpoint) -> None:
    image = Image.open(ROOT / "samples" / "astronaut.png")
    task = FaceTask(image, None, seed=1, degree=DEGREE, steps=1, guidance_scale=GUIDANCE_SCALE)
    started = time.monotonic()
    (face,) = begin_faces(checkpoint, [task], together=1)
    ours = condition(checkpoint, [face.inputs])
    print(f"encoders and ReferenceNets, once an image: {_since(started)}")
    noise = draw_noise(checkpoint, torch.Generator().manual_seed(1))
    (encoded,) = encode_images(checkpoint, [image])
    theirs = straightforward_conditioning(checkpoint, encoded, encoded, noise, degree=DEGREE)

    def step(conditioning: Conditioning) -> tuple[float, Tensor]:
        begun = time.monotonic()
        v = _guided(checkpoint, conditioning, noise.initial)
        return time.monotonic() - begun, v

    def our_step() -> tuple[float, Tensor]:
        install_joining(checkpoint.unet)
        return step(ours)

    def straightforward_step() -> tuple[float, Tensor]:
        install_straightforward(checkpoint.unet, checkpoint.properties.wiring)
        return step(theirs)

    our_v, their_v = _print_ratio(our_step, straightforward_step)
    print(f"peak memory of this process: {_peak_gigabytes(resource.RUSAGE_SELF):.2f} GB")
    exact = _in_float32(checkpoint, theirs, noise.initial)
    print(
        "outputs, root mean square in units of their spread: "
        f"ours from the straightforward {_root_mean_square(our_v - their_v, exact):.1e}, "
        f"ours from float32 {_root_mean_square(our_v - exact, exact):.1e}, "
        f"the straightforward from float32 {_root_mean_square(their_v - exact, exact):.1e}"
    )


def _in_float32(checkpoint: Checkpoint, theirs: Conditioning, initial: Tensor) -> Tensor:
    """Compute the straightforward step in float32: what bfloat16 is to be measured by."""
    install_straightforward(checkpoint.unet, checkpoint.properties.wiring)
    exact = dataclasses.replace(checkpoint, unet=copy.deepcopy(checkpoint.unet).float(), dtype=torch.float32)
    states_of_both: Any = theirs.references
    references: Any = tuple(
        {layer: rows.float() for layer, rows in states.items()} for states in states_of_both
    )
    conditioning = Conditioning(context=theirs.context.float(), references=references)
    return _guided(exact, conditioning, initial)


def _guided(checkpoint: Checkpoint, conditioning: Conditioning, initial: Tensor) -> Tensor:
    both = initial.to(checkpoint.latent_dtype).expand(2, -1, -1, -1)
    v = predict(checkpoint, conditioning, both, torch.full((2,), TIMESTEP, device=checkpoint.device))
    return guide((v[:1], v[1:]), GUIDANCE_SCALE)


def _print_ratio(
    our_step: Callable[[], tuple[float, Tensor]], straightforward_step: Callable[[], tuple[float, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Print the times and return both outputs, v in float32."""
    our_step()  # kernels are chosen and memory grows in the first
    straightforward_step()
    pairs = [(our_step(), straightforward_step()) for _ in range(PAIRS)]
    ratios = [theirs[0] / ours[0] for ours, theirs in pairs]
    print(
        f"guided step at 512 px, median of {PAIRS}: ours {statistics.median(p[0][0] for p in pairs):.2f} s, "
        f"straightforward {statistics.median(p[1][0] for p in pairs):.2f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return pairs[0][0][1], pairs[0][1][1]


def _root_mean_square(difference: Tensor, reference: Tensor) -> float:
    return (difference.square().mean().sqrt() / reference.std()).item()


def _run_command_line(folder: Path, temporary: Path) -> None:
    started = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", "cli.main", "anonymize", str(ROOT / "samples" / "astronaut.png")),
            *(str(temporary / "out.png"), "--checkpoint", str(folder), "--dtype", "bfloat16"),
            *("--steps", "2", "--seed", "1"),
        ],
        cwd=ROOT,
        check=True,
    )
    with Image.open(temporary / "out.png") as out:
        print(
            f"face-anon anonymize, 2 steps, {out.width} x {out.height}: {_since(started)}, "
            f"peak memory {_peak_gigabytes(resource.RUSAGE_CHILDREN):.2f} GB"
        )


def _private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def _peak_gigabytes(who: int) -> float:
    return resource.getrusage(who).ru_maxrss * 1024 / GIGA


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

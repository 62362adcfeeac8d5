"""What depends on the machine the networks run on; everything else is the same on CPU and CUDA."""

import gc
from pathlib import Path

import torch

from model.checkpoint import Checkpoint, Precision
from model.errors import DeviceError

TINY_NETWORK, SMALL_NETWORK = 1_000_000, 50_000_000
"""Parameters. Below the first, a step is over before a second thread has woken up; below the second, a step
has not enough work for more than two (`docs/engine.md` has the measurements)."""
MOST_SHAPES = 64
"""Numbers of rows that a compiled UNet is compiled for; any others run as they are."""


def prepare_device(
    checkpoint: Checkpoint, *, compiled: bool = False, memory_fraction: float | None = None
) -> None:
    """Make this process ready for a checkpoint's networks on their device.

    On the CPU, tiny networks get one thread, small ones like that which ships at most two, others torch's
    choice: it depends on the checkpoint and the machine alone, so that a seed gives the same bytes in every
    process. On CUDA, convolutions go channels-last, and at most `memory_fraction` (0 to 1) of the memory is
    taken. `compiled` lets torch compile the UNet, with CUDA graphs on CUDA, once for each number of rows in
    the batch.
    """
    parameters = sum(parameter.numel() for parameter in checkpoint.unet.parameters())
    if checkpoint.device.type == "cpu" and parameters < SMALL_NETWORK:
        torch.set_num_threads(1 if parameters < TINY_NETWORK else min(2, torch.get_num_threads()))
    if checkpoint.device.type == "cuda":
        if memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(memory_fraction, checkpoint.device)
        for network in (
            checkpoint.unet,
            checkpoint.referencenet,
            checkpoint.conditioning_referencenet,
            checkpoint.vae,
        ):
            network.to(memory_format=torch.channels_last)
    if compiled:
        torch._dynamo.config.recompile_limit = MOST_SHAPES  # noqa: SLF001  its documented place
        checkpoint.unet.compile(mode="reduce-overhead", dynamic=False)


def choose_precision(name: str, device: str) -> Precision:
    """Return the precision of that name; of "auto", the fastest that the device computes in natively.

    That is bfloat16, with float32's range, on GPUs that have it and processors with AMX; else float16 on
    CUDA, and float32 on the CPU, where other formats are slower. Raises `DeviceError` where this machine has
    no such device.
    """
    _check_there(device)
    if name != "auto":
        return Precision(name)
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision.BFLOAT16 if native else Precision.FLOAT16
    return Precision.BFLOAT16 if _cpu_is_fast_in_bfloat16() else Precision.FLOAT32


def _check_there(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name} is no device: cpu, cuda, cuda:1, ...") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no device {name}: torch finds {torch.cuda.device_count()} for CUDA here")


def _cpu_is_fast_in_bfloat16() -> bool:
    try:
        cpu = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
    # With avx512_bf16 alone, matrix products took twice as long as in float32.
    return "amx_bf16" in cpu


def choose_slots(checkpoint: Checkpoint) -> int:
    """Return how many faces to denoise at once where nobody says."""
    return 8 if checkpoint.device.type == "cuda" else 4


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more, after an allocation has failed."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an allocation has failed, on CUDA or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    sentence = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in sentence or "DefaultCPUAllocator: can't allocate memory" in sentence
    )


def is_fatal(error: Exception) -> bool:
    """Tell whether the device has failed for the rest of this process, as after an illegal access on CUDA."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)

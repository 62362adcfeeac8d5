"""`face-anon train`: makes the parts that encode, runs and resumes a training, writes its checkpoint."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

train = typer.Typer(help="Train a checkpoint.", no_args_is_help=True, pretty_exceptions_enable=False)


class StoredAs(StrEnum):
    """The number format weights are stored in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class BestSampler(StrEnum):
    """How the noise is removed best."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    UNIPC = "unipc"


ConfigFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What the run is, as JSON.")]
RunFolder = Annotated[Path, typer.Argument(file_okay=False, help="Where the run's state and reports lie.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads on the processor.", show_default="all cores")
]
ProcessesOption = Annotated[int, typer.Option(min=1, help="Processes that render portraits.")]


@train.command("run")
def run_training(
    config: ConfigFile,
    folder: RunFolder,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run in FOLDER was saved.")
    ] = False,
    branch: Annotated[
        Path | None, typer.Option("--from", file_okay=False, help="Start from the state of another run.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(min=1, help="Stop after this step.", show_default="as in CONFIG")
    ] = None,
    mixed_precision: Annotated[str, typer.Option(help="no, bf16 or fp16")] = "no",
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
) -> None:
    """Run the training in CONFIG; under `accelerate launch` on several GPUs, or alone on what there is."""
    import torch

    from cli.files import fail
    from model.errors import ModelError, TrainingError
    from model.training.config import read_config
    from model.training.loop import Run, saved_state

    if threads is not None:
        torch.set_num_threads(threads)
    # Trained attention is sharp, its small weights are subnormal, and those halve the speed of an x86 core.
    torch.set_flush_denormal(True)
    try:
        if saved_state(folder) and not resume:
            raise TrainingError(f"{folder} has a run's state: say --resume, or name another folder")
        run = Run(read_config(config), folder, mixed_precision=mixed_precision, processes=processes)
        if resume or branch:
            run.resume(None if resume else branch)
        run.train(until)
    except ModelError as error:
        sys.exit(fail(error))


@train.command()
def parts(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where the parts go.")],
    pool: Annotated[Path, typer.Option(file_okay=False, help="Where rendered portraits are kept.")],
    groups: Annotated[int, typer.Option(min=1, help="Groups of portraits to learn from.")] = 700,
    side: Annotated[int, typer.Option(min=2, max=32, help="Identities, and attributes, in a group.")] = 6,
    pixels: Annotated[int, typer.Option(min=16, max=512, help="Side of a portrait.")] = 64,
    channels: Annotated[int, typer.Option(min=1, max=192, help="Main components in a latent.")] = 48,
    steps: Annotated[int, typer.Option(min=1, help="Steps that the image encoder is trained for.")] = 360,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    threads: ThreadsOption = None,
    processes: ProcessesOption = 1,
) -> None:
    """Make vae, image encoder, feature extractor and scheduler for rendered portraits.

    Prints the weights of the loss for the training's config.
    """
    import torch

    from model.training.pool import Pool
    from model.training.portrait_parts import make_parts

    if threads is not None:
        torch.set_num_threads(threads)
    portraits = Pool(pool, seed, side, pixels)
    portraits.render(groups, processes)
    weights = make_parts(folder, portraits, groups=groups, steps=steps, seed=seed, channels=channels)
    typer.echo(f'"latent_weights": {weights}')


@train.command("export")
def export_checkpoint(
    config: ConfigFile,
    folder: RunFolder,
    checkpoint: Annotated[Path, typer.Argument(file_okay=False, help="Where the seven parts go.")],
    dtype: Annotated[StoredAs, typer.Option(help="What the weights are stored as.")] = StoredAs.FLOAT16,
    demonstration: Annotated[
        bool, typer.Option("--demonstration", help="Every answer says that it is not meant for photos.")
    ] = False,
    d: Annotated[float, typer.Option("--d", min=0, max=2)] = 1.25,
    sampler: Annotated[BestSampler, typer.Option()] = BestSampler.DDPM,
    steps: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    guidance_scale: Annotated[float, typer.Option(min=0, max=20)] = 4.0,
) -> None:
    """Write the averaged weights of the run in FOLDER as a checkpoint, with what it is best used with."""
    from cli.files import fail, say
    from model.checkpoint import Defaults, Precision
    from model.errors import ModelError
    from model.task import Sampler
    from model.training.config import read_config
    from model.training.export import export

    try:
        export(
            read_config(config),
            folder,
            checkpoint,
            precision=Precision(dtype.value),
            demonstration=demonstration,
            defaults=Defaults(
                d=d, sampler=Sampler(sampler.value), steps=steps, guidance_scale=guidance_scale
            ),
        )
    except ModelError as error:
        sys.exit(fail(error))
    say(f"wrote {checkpoint}")

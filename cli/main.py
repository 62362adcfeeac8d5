"""`face-anon`: the command line for people and scripts. Each command imports what it needs when it runs,
so that `--help` answers at once.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.settings_help import CommandWithSettings
from cli.train import train

app = typer.Typer(
    help="Anonymize or swap the faces in photos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(train, name="train")

SHIPPED_CHECKPOINT = Path(__file__).parent.parent / "model" / "checkpoints" / "small"


class FacesChoice(StrEnum):
    """Which faces of a photo are replaced."""

    ALL = "all"
    LARGEST = "largest"
    ALIGNED = "aligned"


class SamplerChoice(StrEnum):
    """How the noise is removed."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    UNIPC = "unipc"


class PrecisionChoice(StrEnum):
    """The number format the networks compute in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


InputFile = typer.Argument(exists=True, dir_okay=False, readable=True)
CheckpointOption = Annotated[
    Path,
    typer.Option(
        "--checkpoint",
        envvar="FACE_ANON_CHECKPOINT",
        help="Folder with the seven parts of a checkpoint.",
        show_default="the small one that ships",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Which new face; drawn at random when absent.")
]
SamplerOption = Annotated[
    SamplerChoice | None,
    typer.Option(help="ddpm is the paper's; the others need fewer steps.", show_default="the checkpoint's"),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="Denoising steps.",
        show_default="the checkpoint's, or the sampler's usual: ddpm 200, ddim 50, dpmpp_2m 25, unipc 20",
    ),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=20,
        help="Classifier-free guidance; 1 or less is off.",
        show_default="the checkpoint's",
    ),
]
FacesOption = Annotated[
    FacesChoice,
    typer.Option(
        help="Every face found, the largest, or aligned: the whole picture is one face, aligned as in FFHQ."
    ),
]
FaceThresholdOption = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=0.99,
        envvar="FACE_ANON_FACE_THRESHOLD",
        help="Score from which a find is a face: lower misses fewer and covers more that is none.",
    ),
]
DEFAULT_FACE_THRESHOLD = 0.4
PrecisionOption = Annotated[
    PrecisionChoice, typer.Option(help="What the networks compute in; auto is what the device is best at.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
DevicesOption = Annotated[
    str,
    typer.Option(
        "--devices",
        "--device",
        envvar="FACE_ANON_DEVICES",
        help="cpu, or CUDA devices by number: 0,1. One worker process each.",
    ),
]
SlotsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        envvar="FACE_ANON_SLOTS",
        help="Jobs, and faces in one batch, at a time for each device.",
        show_default="8 on CUDA, 4 on a CPU",
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        min=0,
        envvar="FACE_ANON_GRACE_SECONDS",
        help="How long jobs in hand have to end when the worker is told to stop; then they go back.",
    ),
]


@app.command()
def anonymize(
    photo: Annotated[Path, InputFile],
    out: Annotated[Path, typer.Argument(help="Its suffix gives the format: .png, .jpg, .webp, .avif")],
    checkpoint: CheckpointOption = SHIPPED_CHECKPOINT,
    d: Annotated[
        float | None,
        typer.Option(
            "--d",
            min=0,
            max=2,
            help="Degree: how far from the original identity.",
            show_default="the checkpoint's",
        ),
    ] = None,
    seed: SeedOption = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    faces: FacesOption = FacesChoice.ALL,
    face_threshold: FaceThresholdOption = DEFAULT_FACE_THRESHOLD,
    dtype: PrecisionOption = PrecisionChoice.AUTO,
    device: DeviceOption = "cpu",
) -> None:
    """Replace the faces in PHOTO by other, believable ones and write the photo to OUT."""
    from cli.local import LocalRun, run_anonymize

    run = LocalRun(
        out=out,
        checkpoint=checkpoint,
        seed=seed,
        sampler=sampler.value if sampler else None,
        steps=steps,
        guidance_scale=guidance_scale,
        faces=faces.value,
        face_threshold=face_threshold,
        precision=dtype.value,
        device=device,
    )
    sys.exit(run_anonymize(photo, run, degree=d))


@app.command()
def swap(
    source: Annotated[Path, InputFile],
    driving: Annotated[Path, InputFile],
    out: Annotated[Path, typer.Argument(help="Its suffix gives the format: .png, .jpg, .webp, .avif")],
    checkpoint: CheckpointOption = SHIPPED_CHECKPOINT,
    seed: SeedOption = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    faces: FacesOption = FacesChoice.ALL,
    face_threshold: FaceThresholdOption = DEFAULT_FACE_THRESHOLD,
    dtype: PrecisionOption = PrecisionChoice.AUTO,
    device: DeviceOption = "cpu",
) -> None:
    """Give the faces in DRIVING the identity of the largest face in SOURCE and write the photo to OUT."""
    from cli.local import LocalRun, run_swap

    run = LocalRun(
        out=out,
        checkpoint=checkpoint,
        seed=seed,
        sampler=sampler.value if sampler else None,
        steps=steps,
        guidance_scale=guidance_scale,
        faces=faces.value,
        face_threshold=face_threshold,
        precision=dtype.value,
        device=device,
    )
    sys.exit(run_swap(source, driving, run))


@app.command()
def detect(
    photo: Annotated[Path, InputFile],
    draw: Annotated[
        Path | None, typer.Option(help="Write the photo with the faces drawn into it to this file.")
    ] = None,
    face_threshold: FaceThresholdOption = DEFAULT_FACE_THRESHOLD,
) -> None:
    """Print the faces found in PHOTO as JSON, in pixels of the upright photo."""
    from cli.detect import run_detect

    sys.exit(run_detect(photo, draw, face_threshold=face_threshold))


@app.command()
def submit(
    paths: Annotated[
        list[Path], typer.Argument(exists=True, readable=True, help="Photos, and folders of photos.")
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where the results go; also says what is done already.")
    ] = Path("anonymized"),
    url: Annotated[str, typer.Option(envvar="FACE_ANON_URL", help="The service.")] = "http://127.0.0.1:8000",
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="File with the API key.", show_default="FACE_ANON_API_KEY"
        ),
    ] = None,
    d: Annotated[
        float | None,
        typer.Option("--d", min=0, max=2, help="Degree: how far from the original identity."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="The same for every photo; drawn for each when absent."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(min=0, max=20, help="Classifier-free guidance; 1 or less is off.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="How the noise is removed: ddpm, ...")] = None,
    faces: Annotated[
        FacesChoice | None, typer.Option(help="Every face found, the largest, or aligned.")
    ] = None,
    format: Annotated[  # noqa: A002  the API's name
        str | None, typer.Option(help="png, jpeg, webp, avif", show_default="as each photo")
    ] = None,
    swap: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="SOURCE", help="Give every face the identity of this one."
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Photos under way at a time.")] = 4,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The report as JSON.", show_default="OUT/report.json")
    ] = None,
) -> None:
    """Send PATHS to a running service and write the results to OUT, with a report at the end.

    What is not said is left to the model's defaults. After Ctrl-C, a crash or failures, the same command
    goes on where it was.
    """
    from cli.submit import Submission, run_submit

    if swap is not None and d is not None:
        raise typer.BadParameter("a swap has no degree", param_hint="--d")
    form = {
        "d": d,
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
        "faces": faces and faces.value,
        "format": format,
    }
    given = {name: value for name, value in form.items() if value is not None}
    target = report or out / "report.json"
    sys.exit(run_submit(paths, Submission(out, url, api_key_file, given, swap, parallel, target)))


@app.command()
def evaluate(
    out: Annotated[Path, typer.Argument(help="Folder for the report; made where it is not there.")],
    checkpoint: CheckpointOption = SHIPPED_CHECKPOINT,
    count: Annotated[int, typer.Option(min=2, help="Held-out identities.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Faces made of each at each degree.")] = 2,
    few: Annotated[int, typer.Option(min=1, help="Identities for what is slow: samplers, finding.")] = 24,
    quick: Annotated[
        bool, typer.Option("--quick", help="6 identities at 3 degrees, to see that it runs.")
    ] = False,
    sampler: Annotated[
        SamplerChoice | None, typer.Option(show_default="the checkpoint's", help="How the noise is removed.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, show_default="the checkpoint's", help="Denoising steps.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(min=0, max=20, show_default="the checkpoint's", help="1 or less is off.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Evaluate --results against these photos instead of a checkpoint.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Results named like the photos.")] = None,
    dtype: PrecisionOption = PrecisionChoice.FLOAT32,
    device: DeviceOption = "cpu",
) -> None:
    """Write the paper's tables and figures for a checkpoint, on rendered portraits, to the folder OUT."""
    if (photos is None) != (results is None):
        raise typer.BadParameter("--photos and --results go together")
    from cli.evaluate import EvaluationRun, run_evaluate, run_evaluate_folders

    if photos is not None and results is not None:
        sys.exit(run_evaluate_folders(photos, results, out))
    command = " ".join(["face-anon", *sys.argv[1:]])
    run = EvaluationRun(
        out, checkpoint, count, seeds, few, quick, sampler and sampler.value, steps, guidance_scale,
        dtype.value, device, command,
    )  # fmt: skip
    sys.exit(run_evaluate(run))


RedisUrlOption = Annotated[str, typer.Option("--redis-url", envvar="REDIS_URL", help="The Redis to use.")]
StopWithStdinOption = Annotated[
    bool, typer.Option("--stop-with-stdin", hidden=True, help="Stop when standard input closes.")
]
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]


ProcessesOption = Annotated[
    int,
    typer.Option(
        min=1, max=64, envvar="FACE_ANON_PROCESSES", help="HTTP processes that share the port, one a core."
    ),
]


@app.command(cls=CommandWithSettings)
def service(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    processes: ProcessesOption = 1,
    redis_url: RedisUrlOption = DEFAULT_REDIS_URL,
    stop_with_stdin: StopWithStdinOption = False,
) -> None:
    """Run the HTTP service alone: it needs a Redis, and a worker to do its jobs."""
    _tie_to_parent(stop_with_stdin)
    from service.main import run_service

    sys.exit(run_service(host, port, redis_url, processes))


@app.command()
def worker(
    checkpoint: CheckpointOption = SHIPPED_CHECKPOINT,
    dtype: PrecisionOption = PrecisionChoice.AUTO,
    devices: DevicesOption = "cpu",
    slots: SlotsOption = None,
    grace_seconds: GraceOption = 30.0,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            envvar="FACE_ANON_COMPILE",
            help="Let torch compile the UNet, on CUDA with graphs: a slow start, then faster steps.",
        ),
    ] = False,
    memory_fraction: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            envvar="FACE_ANON_MEMORY_FRACTION",
            help="The most of a CUDA device's memory that its worker takes.",
            show_default="all",
        ),
    ] = None,
    face_threshold: FaceThresholdOption = DEFAULT_FACE_THRESHOLD,
    redis_url: RedisUrlOption = DEFAULT_REDIS_URL,
    stop_with_stdin: StopWithStdinOption = False,
) -> None:
    """Run a worker process for each device: it loads the checkpoint, warms up and takes jobs until SIGTERM.

    One that dies is replaced, and its jobs go back into the queue at once. With SIGTERM the jobs in hand end
    within the grace period or go back; a second SIGTERM puts them back at once.
    """
    _tie_to_parent(stop_with_stdin)
    # Waiting threads must not spin: the service and Redis run on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from worker.supervisor import WorkerOptions, device_names, run_supervisor

    options = WorkerOptions(
        redis_url=redis_url,
        checkpoint=checkpoint,
        precision=dtype.value,
        face_threshold=face_threshold,
        slots=slots,
        grace_seconds=grace_seconds,
        compiled=compiled,
        memory_fraction=memory_fraction,
    )
    sys.exit(run_supervisor(options, device_names(devices)))


@app.command(cls=CommandWithSettings)
def serve(
    checkpoint: CheckpointOption = SHIPPED_CHECKPOINT,
    dtype: PrecisionOption = PrecisionChoice.AUTO,
    devices: DevicesOption = "cpu",
    slots: SlotsOption = None,
    face_threshold: FaceThresholdOption = DEFAULT_FACE_THRESHOLD,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    redis_url: Annotated[
        str | None,
        typer.Option(
            "--redis-url", envvar="REDIS_URL", help="The Redis to use.", show_default="an embedded one"
        ),
    ] = None,
) -> None:
    """Run everything on this machine: Redis (embedded), the service and workers, until Ctrl-C."""
    from cli.serve import run_everything

    worker_options = {
        "--checkpoint": str(checkpoint),
        "--dtype": dtype.value,
        "--devices": devices,
        "--face-threshold": str(face_threshold),
    }
    if slots:
        worker_options["--slots"] = str(slots)
    sys.exit(run_everything(host, port, redis_url, worker_options))


@app.command("embedded-redis", hidden=True)
def embedded_redis(
    socket: Annotated[Path, typer.Argument()], stop_with_stdin: StopWithStdinOption = False
) -> None:
    """Run the embedded Redis-compatible server on a unix socket."""
    _tie_to_parent(stop_with_stdin)
    from cli.embedded_redis import run_embedded_redis

    run_embedded_redis(socket)


def _tie_to_parent(wanted: bool) -> None:
    if wanted:
        from cli.parent import stop_with_parent

        stop_with_parent()


if __name__ == "__main__":
    app()

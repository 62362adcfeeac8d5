"""`face-anon evaluate`: the paper's tables and figures for a checkpoint, or for folders of photos and
results.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from cli.files import fail, say
from model.checkpoint import checkpoint_revision, load_checkpoint
from model.device import choose_precision, prepare_device
from model.errors import ModelError
from model.evaluation.evaluation import evaluate
from model.evaluation.experiments import Experiments, Plan, World
from model.evaluation.figures import plots, sheet
from model.evaluation.findings import Findings
from model.evaluation.folders import Looker, evaluate_folders
from model.evaluation.makers import CheckpointMaker, How
from model.evaluation.networks import load_network
from model.evaluation.readings import validated
from model.evaluation.report import write_report
from model.faces.detection import FaceFinder
from model.faces.identity import DlibFaceEmbedder
from model.faces.landmarks import FaceMesh
from model.task import Sampler

QUICK = Plan(count=6, seeds=1, degrees=(0.6, 1.25, 1.5), gallery=60, few=1, shown=4)
VALIDATION, VALIDATION_QUICK = 600, 200


@dataclass(frozen=True)
class EvaluationRun:
    """What the command was asked for; None is the checkpoint's own default."""

    out: Path
    checkpoint: Path
    count: int
    seeds: int
    few: int
    quick: bool
    sampler: str | None
    steps: int | None
    guidance_scale: float | None
    precision: str
    device: str
    command: str


def run_evaluate(run: EvaluationRun) -> int:
    """Evaluate a checkpoint on rendered portraits; returns the exit code, 1 with a sentence for an error."""
    try:
        precision = choose_precision(run.precision, run.device)
        checkpoint = load_checkpoint(run.checkpoint, precision=precision, device=run.device)
        prepare_device(checkpoint)
        plan = QUICK if run.quick else Plan(count=run.count, seeds=run.seeds, few=run.few)
        how = _how(run, CheckpointMaker(checkpoint))
        with tqdm(unit="face", desc="validating") as bar:
            measures = validated(load_network(), VALIDATION_QUICK if run.quick else VALIDATION)
            world = World(measures, plan.count, plan.gallery, checkpoint.resolution)
            experiments = Experiments(
                CheckpointMaker(checkpoint), world, FaceFinder(), how, plan,
                lambda name, faces: _advance(bar, name, faces),
            )  # fmt: skip
            said = {
                "checkpoint": f"{checkpoint.name}, revision {checkpoint_revision(run.checkpoint)}",
                "made with": f"{how}, {precision}, {checkpoint.resolution} pixels",
                "portraits": f"{plan.count} held-out identities, {plan.seeds} seed(s) each, gallery of "
                f"{max(plan.gallery, plan.count + 1)}; samplers and faces found: the first {plan.few}",
                "command": run.command,
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
            }
            evaluated = evaluate(experiments, f"Evaluation of {checkpoint.name}", said)
        findings = evaluated.findings
        pictures = [*plots(findings.tables[0], findings.verification), *map(sheet, evaluated.strips)]
        write_report(run.out, findings, pictures)
    except (ModelError, OSError) as error:
        return fail(error)
    _tell(findings, run.out)
    return 0


def run_evaluate_folders(photos: Path, results: Path, out: Path) -> int:
    """Evaluate results against photos; returns the exit code, 1 with a sentence for an error."""
    try:
        looker = Looker(FaceFinder(), FaceMesh(threads=2), DlibFaceEmbedder())
        with tqdm(unit="photo") as bar:
            findings = evaluate_folders(looker, photos, results, lambda _: _advance(bar, "photos", 1))
        write_report(out, findings, [])
    except (ModelError, OSError) as error:
        return fail(error)
    _tell(findings, out)
    return 0


def _how(run: EvaluationRun, maker: CheckpointMaker) -> How:

    defaults = maker.checkpoint.properties.defaults
    sampler = defaults.sampler if run.sampler is None else Sampler(run.sampler)
    return How(
        sampler,
        defaults.steps_of(sampler) if run.steps is None else run.steps,
        defaults.guidance_scale if run.guidance_scale is None else run.guidance_scale,
    )


def _advance(bar: "tqdm[NoReturn]", name: str, done: int) -> None:
    bar.set_description(name)
    bar.update(done)


def _tell(findings: Findings, out: Path) -> None:
    for target in findings.targets:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[target.met]
        say(f"{verdict}: {target.wanted}; {target.found}")
    say(f"the report is in {out}: report.html, report.md, report.json")

"""The training loop: every step is a function of the config, its number and the weights before it.

`start`, `sources` and `noising` come before; `reports` shows how it goes, `export` writes the checkpoint. A
run that is cut and resumed goes the way of the uncut one, bit for bit: nothing random is carried over from
step to step.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from diffusers.training_utils import EMAModel
from torch import Generator, Tensor
from torch.optim import AdamW, Optimizer
from tqdm import tqdm

from model.errors import TrainingError
from model.training.config import Optimization, TrainingConfig
from model.training.networks import Examples, Networks, matrices
from model.training.noising import Question, Timesteps, alphas_of, noised, v_loss
from model.training.optimizers import Muon
from model.training.parts import Folders, Parts
from model.training.reports import Reporter
from model.training.sources import Source, source_of
from model.training.start import start_networks

AVERAGE_FILE = "custom_checkpoint_0.pkl"  # what accelerate calls the first registered object
STATE, UNFINISHED, REPLACED = "state", "state.unfinished", "state.replaced"


@dataclass
class Progress:
    """How far a run has come; saved with it."""

    step: int = 0
    rows: int = 0
    unconditional: int = 0
    seconds: float = 0.0
    """Wall time spent in steps, over all sessions."""

    def state_dict(self) -> dict[str, Any]:
        """Return it as `accelerate` saves it."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a saved one."""
        for name, value in state.items():
            setattr(self, name, value)


class Run:
    """One training run in one folder: its `state/`, `log.jsonl`, TensorBoard events and pictures."""

    def __init__(
        self, config: TrainingConfig, folder: Path, *, mixed_precision: str = "no", processes: int = 1
    ) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator(
            gradient_accumulation_steps=config.optimization.accumulate,
            mixed_precision=mixed_precision,
            log_with="tensorboard",
            project_config=ProjectConfiguration(str(folder), logging_dir=str(folder / "events")),
            # The last layers of the ReferenceNets, behind the last states, have no gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        with self.accelerator.main_process_first():
            parts = Parts.load(Folders.of(config.start), self.accelerator.device)
            self.source: Source = source_of(config, parts, folder, processes)
        networks = start_networks(config)
        self.rates, optimizers = optimizers_of(networks, config.optimization)
        self.networks, *self.optimizers = self.accelerator.prepare(networks, *optimizers)
        self.average = average_of(self._bare(), config.optimization.averaging)
        self.average.to(self.accelerator.device)
        self.progress = Progress()
        self.accelerator.register_for_checkpointing(self.average, self.progress)
        self.alphas = alphas_of(parts.scheduler)
        self.timesteps = Timesteps(config.terminal, config.timestep_power)
        weights = config.latent_weights
        self.weights = None if weights is None else torch.tensor(weights, device=self.accelerator.device)
        self.reporter = Reporter(folder, parts, self.source, self.weights)

    def resume(self, other: Path | None = None) -> None:
        """Go on from the saved state, or branch off from that of a run in another folder.

        Raises TrainingError where there is none.
        """
        folder = other or self.folder
        saved = saved_state(folder)
        if saved is None:
            raise TrainingError(f"{folder}: no state of a run is saved there")
        self.accelerator.load_state(str(saved))

    def save(self) -> None:
        """Save the exact state; a stop at any moment leaves the former or the new one."""
        unfinished, former = self.folder / UNFINISHED, self.folder / REPLACED
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(unfinished), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            saved = self.folder / STATE
            if saved.is_dir():
                shutil.rmtree(former, ignore_errors=True)
                saved.rename(former)
            unfinished.rename(saved)
            shutil.rmtree(former, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def train(self, until: int | None = None, *, bar: bool = True) -> None:
        """Train up to step `until`, or the config's last, and save."""
        last = self.config.steps if until is None else min(until, self.config.steps)
        reports, losses = self.config.reports, []
        saved = time.monotonic()
        shown = tqdm(
            total=last,
            initial=self.progress.step,
            disable=not (bar and self.accelerator.is_main_process),
            unit="step",
        )
        while self.progress.step < last:
            begun = time.monotonic()
            losses.append(self.step())
            self.progress.seconds += time.monotonic() - begun
            step = self.progress.step
            shown.update()
            if step % reports.log == 0 or step == last:
                loss = float(np.mean(losses))
                losses.clear()
                shown.set_postfix(loss=f"{loss:.4f}")
                self._log({"loss": loss, "rate": self._factor(step)})
            if step % reports.validate_every == 0:
                self.validate()
            late = reports.save_minutes is not None and time.monotonic() - saved > reports.save_minutes * 60
            if step % reports.save == 0 or late:
                self.save()
                saved = time.monotonic()
        shown.close()
        self.save()

    def step(self) -> float:
        """Take one step; return its loss, the mean over the micro-batches of this process."""
        optimization = self.config.optimization
        factor = self._factor(self.progress.step)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        losses, rows, unconditional = [], 0, 0
        for question in self._questions(self.progress.step):
            with self.accelerator.accumulate(self.networks):
                predicted = self.networks(question.examples)
                loss = v_loss(predicted, question.v, self.weights, question.emphasis)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients and optimization.largest_gradient is not None:
                    self.accelerator.clip_grad_norm_(
                        self.networks.parameters(), optimization.largest_gradient
                    )
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
            losses.append(loss.item())
            rows += len(question.v)
            unconditional += question.unconditional
        # Over all processes, which draw their own.
        counted = torch.tensor([rows, unconditional], device=self.accelerator.device)
        rows, unconditional = self.accelerator.reduce(counted, reduction="sum").tolist()
        self.progress.rows += rows
        self.progress.unconditional += unconditional
        self.progress.step += 1
        self.average.step(self._bare().moving())
        return float(np.mean(losses))

    def validate(self) -> dict[str, float]:
        """Measure the averaged weights on held-out triplets, and draw some."""
        networks = self._bare()
        self.average.store(networks.moving())
        self.average.copy_to(networks.moving())
        networks.eval()
        try:
            if self.accelerator.is_main_process:
                figures = self.reporter.validate(networks, self.progress.step)
                self._log(figures)
                return figures
            return {}
        finally:
            networks.train()
            self.average.restore(networks.moving())
            self.accelerator.wait_for_everyone()

    def _questions(self, step: int) -> Iterator[Question]:
        for micro in range(self.config.optimization.accumulate):
            generator = generator_of(self.config.seed, self.accelerator.process_index, step, micro)
            question = noised(
                self.source.triplets(step, generator),
                self.alphas,
                self.timesteps,
                draws=self.config.draws,
                unconditional=self.config.unconditional,
                generator=generator,
            )
            yield on(question, self.accelerator.device)

    def _factor(self, step: int) -> float:
        optimization = self.config.optimization
        factor = min(1.0, (step + 1) / max(optimization.warmup_steps, 1))
        if optimization.cooldown_from is not None and step > optimization.cooldown_from:
            factor *= max(0.0, (self.config.steps - step) / (self.config.steps - optimization.cooldown_from))
        return factor

    def _bare(self) -> Networks:
        networks: Networks = self.accelerator.unwrap_model(self.networks)
        return networks

    def _log(self, figures: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.reporter.log(
                figures,
                step=self.progress.step,
                hours=self.progress.seconds / 3600,
                rows=self.progress.rows,
                unconditional=self.progress.unconditional,
            )


def average_of(networks: Networks, decay: float) -> EMAModel:
    """Return the running average of the weights, which forgets faster early in a run."""
    return EMAModel(networks.moving(), decay=decay, use_ema_warmup=True, power=0.75)


def averaged_networks(config: TrainingConfig, folder: Path) -> Networks:
    """Return the averaged networks of the run saved in `folder`. Raises TrainingError where there is none."""
    saved = saved_state(folder)
    if saved is None:
        raise TrainingError(f"{folder}: no state of a run is saved there")
    networks = start_networks(config)
    average = average_of(networks, config.optimization.averaging)
    average.load_state_dict(torch.load(saved / AVERAGE_FILE, map_location="cpu", weights_only=True))
    average.copy_to(networks.moving())
    return networks.eval()


def saved_state(folder: Path) -> Path | None:
    """Return where a run's state is saved; a run stopped between two renames has the former one."""
    return next((folder / name for name in (STATE, REPLACED) if (folder / name).is_dir()), None)


def optimizers_of(networks: Networks, optimization: Optimization) -> tuple[list[float], list[Optimizer]]:
    """Return the optimizers of the trained parameters, and the rate of each."""
    inside = list(matrices(networks)) if optimization.muon_rate is not None else []
    theirs = {id(parameter) for parameter in inside}
    others = [
        parameter
        for parameter in networks.parameters()
        if parameter.requires_grad and id(parameter) not in theirs
    ]
    adamw = AdamW(
        others, lr=optimization.rate, betas=optimization.betas, weight_decay=optimization.weight_decay
    )
    if optimization.muon_rate is None:
        return [optimization.rate], [adamw]
    muon = Muon(inside, lr=optimization.muon_rate, weight_decay=optimization.weight_decay)
    return [optimization.rate, optimization.muon_rate], [adamw, muon]


def generator_of(*numbers: int) -> Generator:
    """Return the generator of a micro-batch of a step of a process."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(seed) & (2**63 - 1))


def on(question: Question, device: torch.device) -> Question:
    """Return the question on a device."""
    moved: dict[str, Tensor] = {name: value.to(device) for name, value in vars(question.examples).items()}
    return Question(
        Examples(**moved), question.v.to(device), question.emphasis.to(device), question.unconditional
    )

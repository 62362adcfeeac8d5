"""The paper's experiments on rendered portraits: degree, swap, the equations' ablation, samplers.

`makers.py` makes the faces, `comparison.py` measures each; here they are many, and averaged. `evaluation.py`
puts the experiments together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from model.conditioning import Equations
from model.evaluation.comparison import Yardstick, compare, compare_swap, decibel
from model.evaluation.estimates import estimate
from model.evaluation.findings import Row, Strip, Table
from model.evaluation.makers import FaceMaker, How
from model.evaluation.portraits import Pixels, Portraits, Stream, portray, sample
from model.evaluation.presence import Finder, found
from model.evaluation.readings import Measures, distances, soft
from model.renderer.parameters import Floats
from model.task import Sampler

Columns = Mapping[str, Floats]
OnFaces = Callable[[str, int], None]
"""Called with the experiment's name and how many faces have just been made."""


ITSELF, BLURRED = "the portrait itself", "the portrait, blurred"
ENCODED = "the portrait, encoded and decoded"
STRANGER, RANDOM = "a stranger in the same attributes", "a random pair"


@dataclass(frozen=True)
class Plan:
    """How much to evaluate: subjects, seeds of each, degrees, gallery, and fewer subjects for the dear."""

    count: int = 100
    seeds: int = 2
    degrees: tuple[float, ...] = (0.3, 0.6, 0.9, 1.2, 1.25, 1.4, 1.5)
    degree: float = 1.25
    gallery: int = 1000
    few: int = 24
    """Subjects where many steps or a slow measure are needed: samplers, and whether a face is found."""
    shown: int = 6
    """Rows of the strips."""
    samplers: tuple[tuple[Sampler, int], ...] = (
        (Sampler.DDPM, 200),
        (Sampler.DDPM, 25),
        *((sampler, sampler.usual_steps) for sampler in (Sampler.DDIM, Sampler.DPMPP_2M, Sampler.UNIPC)),
    )


@dataclass(frozen=True)
class World:
    """The portraits that faces are made of and compared with, each rendered and read once."""

    measures: Measures
    count: int
    gallery: int
    size: int

    @cached_property
    def subjects(self) -> Yardstick:
        """The portraits that are anonymized, and that drive the swaps."""
        return self._yardstick(sample(Stream.SUBJECTS, self.count, self.size))

    @cached_property
    def sources(self) -> Yardstick:
        """Strangers in attributes of their own: they give the swaps their identities."""
        return self._yardstick(sample(Stream.STRANGERS, self.count, self.size))

    @cached_property
    def strangers(self) -> Yardstick:
        """The same strangers in the subjects' attributes: what swaps and perfect anonymizations are."""
        identities = self.sources.portraits.identities
        return self._yardstick(portray(identities, self.subjects.portraits.attributes, self.size))

    @cached_property
    def _others(self) -> Floats:
        """Embeddings that fill up the gallery."""
        lacking = max(self.gallery - self.count, 1)
        return self.measures.read(sample(Stream.GALLERY, lacking, self.size).pictures).embeddings

    def _yardstick(self, portraits: Portraits) -> Yardstick:
        return Yardstick.of(self.measures, portraits, self._others)


@dataclass(frozen=True)
class Experiments:
    """What all experiments share: who makes the faces and how, the portraits, and what finds faces."""

    maker: FaceMaker
    world: World
    finder: Finder
    how: How
    plan: Plan
    on_faces: OnFaces = field(default=lambda *_: None)

    @property
    def measures(self) -> Measures:
        """What measures."""
        return self.world.measures

    @property
    def size(self) -> int:
        """The side of the portraits in pixels."""
        return self.world.size

    @property
    def subjects(self) -> Yardstick:
        """The portraits that are anonymized."""
        return self.world.subjects

    def degrees(self) -> tuple[Table, Strip]:
        """Anonymize every subject at every degree (Figures 4, 9, 10 and 11)."""
        rows, shown = [], []
        for degree in self.plan.degrees:
            made = self._anonymized(f"d = {degree:g}", degree, self.how, self.plan.count, self.plan.seeds)
            shown.append(made[: self.plan.shown, 0])
            few = made[: self.plan.few, 0]
            rows.append(self._row(f"d = {degree:g}", made, found=found(self.finder, few), degree=degree))
        anchors = self.anchors()
        table = Table(
            key="degree",
            title="Degree of anonymization",
            note="Figures 9, 10 and 11 of the paper: everything against d.",
            rows=tuple(rows),
            anchors=anchors,
        )
        strip = Strip(
            "degree", "degree", "Degree", "Each row is one subject with one seed (Figure 4 of the paper).",
            ("portrait", *(row.label for row in rows)),
            np.stack((self.subjects.portraits.pictures[: self.plan.shown], *shown), axis=1),
        )  # fmt: skip
        return table, strip

    def anchors(self) -> tuple[Row, ...]:
        """Measure portraits in place of made faces: what the figures are to be read by."""
        portraits = self.subjects.portraits.pictures
        one = portraits[:, None]
        few = portraits[: self.plan.few]
        encoded = self.maker.reconstruct(self.subjects.portraits)
        rolled = self.world.sources.portraits.pictures
        return (
            self._row(ITSELF, one, found=found(self.finder, few)),
            self._row(BLURRED, soft(portraits, self.size / 80)[:, None]),
            self._row(ENCODED, encoded[:, None]),
            self._stranger(),
            self._row(RANDOM, rolled[:, None]),
        )

    def swaps(self) -> tuple[Table, Strip]:
        """Give each subject the identity of a stranger (Table 3)."""
        sources, drivings, truth = self.world.sources, self.subjects, self.world.strangers
        count, seeds = self.plan.count, self.plan.seeds

        def measured(label: str, made: Pixels) -> Row:
            columns = [
                compare_swap(self.measures, sources, drivings, truth, made[:, index])
                for index in range(made.shape[1])
            ]
            return _averaged(label, columns)

        made = np.stack(
            [
                self.maker.swap(sources.portraits, drivings.portraits, self._seeds(count, index), self.how)
                for index in range(seeds)
            ],
            axis=1,
        )
        self.on_faces("swap", count * seeds)
        table = Table(
            key="swap",
            title="Swap",
            note="Table 3 of the paper. The truth, source's identity in driving attributes, is rendered.",
            rows=(measured("swapped", made),),
            anchors=(
                measured("the truth itself", truth.portraits.pictures[:, None]),
                measured("the truth, blurred", soft(truth.portraits.pictures, self.size / 80)[:, None]),
                measured("the driving portrait", drivings.portraits.pictures[:, None]),
                measured("the source portrait", sources.portraits.pictures[:, None]),
            ),
        )
        shown = slice(0, self.plan.shown)
        strip = Strip(
            "swap", "swap", "Swap", "The source gives the identity, the driving portrait everything else.",
            ("source", "driving", "swapped", "truth"),
            np.stack(
                (
                    sources.portraits.pictures[shown],
                    drivings.portraits.pictures[shown],
                    made[shown, 0],
                    truth.portraits.pictures[shown],
                ),
                axis=1,
            ),
        )  # fmt: skip
        return table, strip

    def equations(self) -> tuple[Table, Strip]:
        """Leave out parts of the two equations of the degree (Table 2)."""
        rows, shown = [], []
        for equations in Equations:
            how = replace(self.how, equations=equations)
            made = self._anonymized(equations, self.plan.degree, how, self.plan.count, 1)
            rows.append(self._row(str(equations), made, degree=self.plan.degree))
            shown.append(made[: self.plan.shown, 0])
        table = Table(
            key="equations",
            title="Ablation of the two equations",
            note=f"Table 2 of the paper, at d = {self.plan.degree:g}: token only is eq. 1 alone, states only "
            "eq. 2 alone, without the unconditional part is eq. 1 and (1 - d) S_cond.",
            rows=tuple(rows),
            anchors=(self._stranger(),),
        )
        strip = Strip(
            "equations", "equations", "Equations", f"The same subjects and seed, d = {self.plan.degree:g}.",
            ("portrait", *map(str, Equations)),
            np.stack((self.subjects.portraits.pictures[: self.plan.shown], *shown), axis=1),
        )  # fmt: skip
        return table, strip

    def samplers(self) -> tuple[Table, Strip]:
        """Make the same faces with few steps and with the paper's 200 DDPM steps."""
        hows = [replace(self.how, sampler=sampler, steps=steps) for sampler, steps in self.plan.samplers]
        if self.how not in hows:
            hows.append(self.how)
        made = [
            self._anonymized(str(how), self.plan.degree, how, min(self.plan.few, self.plan.count), 1)
            for how in hows
        ]
        reference = made[0][:, 0]
        rows = [
            self._row(
                f"{how.sampler}, {how.steps} steps",
                faces,
                degree=self.plan.degree,
                likeness=decibel(faces[:, 0], reference, np.ones(reference.shape[:3], np.bool_)),
                same_identity=distances(
                    self.measures.read(faces[:, 0]).embeddings, self.measures.read(reference).embeddings
                ),
            )
            for how, faces in zip(hows, made, strict=True)
        ]
        rows[0] = rows[0].model_copy(
            update={
                "values": {k: v for k, v in rows[0].values.items() if k not in {"likeness", "same_identity"}}
            }
        )
        table = Table(
            key="samplers",
            title="Few-step samplers against 200 DDPM steps",
            note=f"The same {len(reference)} subjects and seeds, d = {self.plan.degree:g}.",
            rows=tuple(rows),
        )
        shown = [faces[: self.plan.shown, 0] for faces in made]
        strip = Strip(
            "samplers", "samplers", "Samplers", "The same subjects and seed.",
            ("portrait", *(f"{how.sampler} {how.steps}" for how in hows)),
            np.stack((self.subjects.portraits.pictures[: len(shown[0])], *shown), axis=1),
        )  # fmt: skip
        return table, strip

    def seeds(self) -> Strip:
        """Make several faces of each of some subjects (Figure 5)."""
        count = min(self.plan.shown, self.plan.count)
        made = self._anonymized("seeds", self.plan.degree, self.how, count, self.plan.shown)
        return Strip(
            "seeds", "degree", "Seeds",
            f"Each row is one subject at d = {self.plan.degree:g} (Figure 5 of the paper).",
            ("portrait", *(f"seed {index}" for index in range(self.plan.shown))),
            np.concatenate((self.subjects.portraits.pictures[:count, None], made), axis=1),
        )  # fmt: skip

    def _anonymized(self, name: str, degree: float, how: How, count: int, seeds: int) -> Pixels:
        """Return faces (count, seeds, size, size, 3) of the first subjects."""
        portraits = self.subjects.portraits.rows(slice(0, count))
        made = np.stack(
            [
                self.maker.anonymize(portraits, self._seeds(len(portraits), index), degree, how)
                for index in range(seeds)
            ],
            axis=1,
        )
        self.on_faces(name, len(portraits) * seeds)
        return made

    @staticmethod
    def _seeds(count: int, index: int) -> list[int]:
        """Return the seed of each subject's face number `index`: no two faces of a run share one."""
        return [1000 * index + subject for subject in range(count)]

    def _stranger(self) -> Row:
        """Measure strangers in the subjects' attributes: what a perfect anonymization gives."""
        return self._row(STRANGER, self.world.strangers.portraits.pictures[:, None])

    def _row(self, label: str, made: Pixels, *, degree: float | None = None, **more: Floats) -> Row:
        """Measure faces (n, seeds, size, size, 3) of the first n subjects, and add what has been measured."""
        count = len(made)
        yardstick = self.subjects.first(count)
        columns = [compare(self.measures, yardstick, made[:, index]) for index in range(made.shape[1])]
        row = _averaged(label, columns, degree)
        added = {name: estimate(values) for name, values in more.items()}
        return row.model_copy(
            update={"values": {**row.values, **{name: one for name, one in added.items() if one}}}
        )


def _averaged(label: str, columns: Sequence[Columns], degree: float | None = None) -> Row:
    """Average one set of columns for each seed."""
    estimates = {
        name: estimate(np.stack([column[name] for column in columns], axis=1)) for name in columns[0]
    }
    return Row(label=label, degree=degree, values={name: one for name, one in estimates.items() if one})

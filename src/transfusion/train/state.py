"""The state of a run: what a checkpoint holds, and how it is saved.

Data order, times and noise are functions of (seed, step), so the state is weights, averages, optimizer moments and
the step. It must not know the loop, nor how a state comes to be (``opening``).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.optim import Optimizer

from transfusion.autoencoder.pixels import PixelSpace
from transfusion.autoencoder.settings import draws_posterior
from transfusion.autoencoder.space import LatentSpace
from transfusion.config import RunConfig
from transfusion.data.encode import IMAGE, Encoder
from transfusion.data.found import Found, counted
from transfusion.data.mixture import changed_sources
from transfusion.data.settings import TEXT_ALONE, FolderConfig, data_of
from transfusion.data.sources import OpenedData
from transfusion.model.grow import Part
from transfusion.model.transfusion import TransfusionModel
from transfusion.tokenizer import Tokenizer
from transfusion.train.best import read_best
from transfusion.train.changes import Change
from transfusion.train.checkpoint import (
    make_room,
    newest_step,
    prune,
    publish,
    step_directory,
)
from transfusion.train.ema import Ema
from transfusion.train.endings import NotFiniteError, not_finite
from transfusion.train.facts import Facts, Origin, check_same, write_facts
from transfusion.train.folder import Seen, seen
from transfusion.train.manifest import (
    EMA_FILE,
    OPTIMIZER_FILE,
)
from transfusion.train.optimizer import (
    optimizer_tensors,
    set_lr,
    steps_before_cooldown,
)
from transfusion.train.saved import (
    write_pretrained,
)
from transfusion.train.tensors import save_tensors

_log = logging.getLogger(__name__)


def way_out(run: Path | None) -> str:
    """Say how to go on from a run whose data are not those that it began with."""
    return (
        "begin a new run from its weights in another folder: transfusion train RECIPE data.path=DATA "
        f"train.init={run or 'RUN'} --run ANOTHER"
    )


@dataclass
class TrainState:
    """Everything that a step changes, with the settings and the tokenizer.

    Attributes:
        is_whole: Whether weights, averages and moments are those after ``step`` steps, and not in between.
        saved_step: Steps after which the newest checkpoint was taken; None while there is none.
        changes: Settings that a resume took and that the run has not told of yet.
        origin: The checkpoint that the run began from, if it did not begin from nothing.
        parts: Parameters that a run that began from trained weights has not from there; told once.
        seen: Checkpoints that the run's folder held when the state was opened, and its own; None where no folder was
            looked at.
        space: What pictures become; None: pixels.
        held_out: The digest of the data that held-out losses are taken on; None where none are bound.
        records: How many records the data have; None where they never end, or that is not known.
        slots: Slots that the steps took of each source of a mixture; None of other data.
        planned: How the plan of rows stands: see ``data.plan.Planned``.
        forgets_best: Whether the best checkpoint was chosen by losses on other held-out data.
        taken: The folder that is this training's; None: none yet.
        opened: The data, opened; None: they are when they are first asked for.
    """

    config: RunConfig
    tokenizer: Tokenizer
    model: TransfusionModel
    ema: Ema | None
    optimizers: list[Optimizer]
    step: int = 0
    train_seconds: float = 0.0
    data: str | None = None
    is_whole: bool = True
    saved_step: int | None = None
    changes: tuple[Change, ...] = ()
    origin: Origin | None = None
    parts: tuple[Part, ...] = ()
    seen: frozenset[Seen] | None = None
    held_out: str | None = None
    space: LatentSpace | None = None
    records: int | None = None
    slots: dict[str, int] | None = None
    planned: tuple[int, ...] = ()
    forgets_best: bool = False
    taken: Path | None = None
    opened: OpenedData | None = None

    def open_data(self) -> OpenedData:
        """Return the run's data, opened: once, for all that is asked of them.

        Raises:
            DataError: They cannot be used.
        """
        if self.opened is None or self.opened.reader.config != self.config.data:
            self.opened = OpenedData(self.config.data, self.config.train.seed)
        return self.opened

    @property
    def latents(self) -> LatentSpace:
        """What pictures become."""
        return self.space or PixelSpace(self.config.encode.standardisation)

    @property
    def encodes_pictures(self) -> bool:
        """Whether a network encodes pictures while the run trains: they are not latents already."""
        prepared = ("latents", *TEXT_ALONE)
        is_prepared = (isinstance(data, FolderConfig) and data.layout in prepared for data in data_of(self.config.data))
        return self.latents.is_network and not all(is_prepared)

    @property
    def encoder(self) -> Encoder:
        """What tells the run's records."""
        config, draws = self.config, draws_posterior(self.config.autoencoder)
        modality = config.model.modality(IMAGE)
        return Encoder(self.tokenizer, config.encode, config.train.seed, self.space, draws, modality)

    @property
    def best_model(self) -> TransfusionModel:
        """The averaged model if there is one, else the model."""
        if self.ema is None:
            return self.model
        assert isinstance(self.ema.model, TransfusionModel)
        return self.ema.model

    def check_data(
        self,
        digest: str,
        held_out: str | None = None,
        *,
        found: Found | None = None,
        run: Path | None = None,
        is_change_wanted: bool = False,
    ) -> None:
        """Bind the state to the data that it is trained on, and to those that held-out losses are taken on, if any.

        Args:
            digest: Names what the data hold.
            held_out: Names what of the held-out data is measured.
            found: What was found of the data, for errors.
            run: The run's folder, for errors.
            is_change_wanted: Whether a run that goes on takes data that changed as they are now: from its step on its
                order is that of the new ones, and the best checkpoint by other held-out losses is forgotten.

        Raises:
            ConfigError: A resumed run was trained on other data, or its held-out losses were taken on others, and that
                is not wanted.
        """
        changed = None if self.data in (None, digest) else Change("data", self.data, digest)
        is_other = held_out is not None and self.held_out not in (None, held_out)
        if is_change_wanted:
            self.changes += () if changed is None else (changed,)
            self.forgets_best = self.forgets_best or is_other
        else:
            self._check_same(digest, held_out, found, run)
        self.data, self.held_out = digest, held_out or self.held_out
        self.records = self.records if found is None else found.records

    def update(self, factor: float) -> None:
        """Take a step along the gradients that the weights hold, at rates of ``factor`` times their peaks."""
        self.is_whole = False
        set_lr(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        self.is_whole = True

    def count_slots(self, slots: Mapping[str, int]) -> dict[str, float]:
        """Count the slots that a step took of each source of a mixture, and return the share of each of all steps'."""
        before = self.slots or {}
        if slots or before:
            names = [*before, *(name for name in slots if name not in before)]
            self.slots = {name: before.get(name, 0) + slots.get(name, 0) for name in names}
        total = sum((self.slots or {}).values())
        return {name: count / total for name, count in (self.slots or {}).items()}

    def _check_same(self, digest: str, held_out: str | None, found: Found | None, run: Path | None) -> None:
        """Check that the data are those that the state is bound to: see ``check_data``."""
        then = "" if self.records is None else f" ({counted(self.records, 'record')} then)"
        now = "" if found is None else f". Now: {found.line()}"
        otherwise = "(files, captions or their order), or this version reads them otherwise"
        which = ", ".join(changed_sources(self.data or "", digest))
        told = (
            f"{otherwise} than the one that began the run{then}; restore the data, go on with them as they are "
            f"now (the same command with --change), or {way_out(run)}{now}"
        )
        check_same(f"data of {which}" if which else "data", self.data, digest, told)
        told = (
            f"{otherwise}, so that losses on them cannot be compared, and no best checkpoint be chosen; restore them, "
            f"go on without (train.evaluate_every=0), or {way_out(run)}"
        )
        check_same("held-out data", self.held_out, held_out, told)

    def save(self, run: Path) -> Path:
        """Publish a checkpoint of the present step and delete old ones, all but the newest and the best.

        Raises:
            NotFiniteError: The weights are not finite; the checkpoints stay as they are.
        """
        assert self.is_whole, f"an update after step {self.step} is under way"
        models = [self.model] if self.ema is None else [self.model, self.ema.model]
        if not all(bool(value.isfinite().all()) for model in models for value in model.parameters()):
            raise self.not_finite("the weights are", run)

        bound = self.data, self.origin, self.held_out, self.records, self.slots, self.planned
        facts = Facts(self.step, self.train_seconds, *bound)

        def write(folder: Path) -> None:
            write_pretrained(folder, self.model, self.tokenizer, self.config, self.space)
            if self.ema is not None:
                save_tensors(self.ema.model.state_dict(), folder / EMA_FILE)
            save_tensors(optimizer_tensors(self.optimizers), folder / OPTIMIZER_FILE)
            write_facts(folder, facts)

        directory = step_directory(run, self.step)
        make_room(directory)
        published = publish(directory, write)
        self.saved_step = self.step
        self.seen = (self.seen or frozenset()) | seen(run)
        prune(published, self.config.train.num_checkpoints, spared=self._spared(run))
        return published

    def begin_facts(self) -> dict[str, object] | None:
        """Return what the run's folder is told of what it begins from; None where it begins from nothing."""
        if self.origin is None:
            return None
        parts = [{"name": name, "shape": shape, "what": what} for name, shape, what in self.parts]
        return {"from": self.origin._asdict(), **({"parts": parts} if parts else {})}

    def _spared(self, run: Path) -> tuple[int, ...]:
        """Return steps whose checkpoints stay: the best one's, and the newest before the cool-down, from which a longer
        run goes on without a jump.
        """
        best = read_best(run)
        most = steps_before_cooldown(self.config.train.optimizer, self.config.train.steps)
        level = None if most is None else newest_step(run, most)
        return tuple(step for step in (None if best is None else best.step, level) if step is not None)

    def not_finite(self, what: str, run: Path, *, facts: str = "") -> NotFiniteError:
        """Make the error that says ``what`` is not finite at the present step, with what is known, and how to go on."""
        return not_finite(self, what, run, self.config.train.optimizer.lr, facts=facts)

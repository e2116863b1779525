"""The objective: oracles, counts, packing and the keys of its draws."""

import math
from typing import get_args

import pytest
import torch
from tiny import FLOW, documents, make_model, model_config, run_config
from torch import Tensor, nn

from transfusion.batch import Batch, Draw, TimeAndNoise, collate
from transfusion.diffusion.prediction import Kind, target
from transfusion.diffusion.process import DiffusionConfig, make_process
from transfusion.diffusion.schedule import ScheduleConfig
from transfusion.layout import num_slots
from transfusion.model.transfusion import Outputs
from transfusion.objective import KeyedDraw, LossSum, ObjectiveConfig, TransfusionObjective
from transfusion.segments import Document, Latent

VOCABULARY = model_config().vocabulary()
KINDS: tuple[Kind, ...] = get_args(Kind)


def batch_of(rows: list[list[Document]], draw: Draw | None = None) -> Batch:
    """Collate rows, each as long as the longest needs."""
    length = max(sum(num_slots(document, VOCABULARY) for document in row) for row in rows)
    return collate(rows, VOCABULARY, draw or KeyedDraw(FLOW, 0), length)


def objective(diffusion: DiffusionConfig = FLOW) -> TransfusionObjective:
    """Make the objective."""
    return TransfusionObjective(diffusion, ObjectiveConfig(), VOCABULARY)


class Oracle(nn.Module):
    """Outputs what it is told: the exact target of every span, or zero; uniform or perfect logits."""

    def __init__(self, batch: Batch, diffusion: DiffusionConfig, *, is_exact: bool) -> None:
        super().__init__()
        self.batch, self.diffusion, self.is_exact = batch, diffusion, is_exact

    def forward(self, columns: object, spans: object, text_slots: Tensor, mask: object) -> Outputs:
        schedule = make_process(self.diffusion).schedule
        targets = self.batch.columns.targets.flatten()[text_slots]
        logits = torch.zeros(len(targets), VOCABULARY.size)
        if self.is_exact:
            logits[torch.arange(len(targets)), targets] = 1e4
        exact = [target(self.diffusion.prediction, schedule, g.x_0, g.noise, g.t) for g in self.batch.spans]
        return Outputs(logits, tuple(x if self.is_exact else torch.zeros_like(x) for x in exact))


@pytest.mark.parametrize("prediction", KINDS)
@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("kind", ["cosine", "straight"])
def test_exact_predictor_scores_zero(prediction: Kind, loss: Kind, kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"kind": kind, "min_t": 0.1})
    diffusion = DiffusionConfig(schedule=schedule, prediction=prediction, loss=loss)
    pool = [[document] for document in documents(10)]

    def draw(document: Document, number: int, latent: Latent) -> TimeAndNoise:
        drawn = KeyedDraw(diffusion, 0)(document, number, latent)
        return drawn._replace(t=min(drawn.t, 0.9))

    batch = batch_of(pool, draw)
    for found in objective(diffusion)(Oracle(batch, diffusion, is_exact=True), batch).values():
        assert found.count > 0 and float(found.sum) / found.count < 1e-8


def test_zeros_score_one_and_uniform_logits_score_log_v() -> None:
    diffusion = DiffusionConfig()
    batch = batch_of([[document] for document in documents(200)])
    losses = objective(diffusion)(Oracle(batch, diffusion, is_exact=False), batch)
    # 80 images of 32 and 120 sounds of up to 18 values: standard error of the mean square below 0.035.
    assert float(losses["image"].sum) / losses["image"].count == pytest.approx(1.0, abs=0.1)
    assert float(losses["sound"].sum) / losses["sound"].count == pytest.approx(1.0, abs=0.12)
    assert float(losses["text"].sum) / losses["text"].count == pytest.approx(math.log(VOCABULARY.size), abs=1e-5)


def test_counts_are_those_of_the_losses() -> None:
    batch = batch_of([[document] for document in documents(7)])
    losses = objective()(make_model(), batch)
    assert {name: loss.count for name, loss in losses.items()} == objective().counts(batch)
    text_only = batch_of([[documents(4)[3]]])
    assert objective().counts(text_only) == {"text": 8, "image": 0, "sound": 0}
    losses = objective()(make_model(), text_only)
    assert float(objective().total(losses, objective().counts(text_only)).detach()) == pytest.approx(
        float(losses["text"].sum.detach()) / 8
    )


def test_total_weighs_means() -> None:
    losses = {"text": LossSum(torch.tensor(6.0), 3), "image": LossSum(torch.tensor(8.0), 4)}
    assert float(objective().total(losses, {"text": 6, "image": 4})) == 6 / 6 + 5 * 8 / 4


def test_spans_that_are_no_target_have_no_loss() -> None:
    document = documents(1)[0]
    quiet = Document((document.segments[0], Latent(torch.ones(2, 4, 4), "image", is_target=False)), ("quiet",))
    batch = batch_of([[document], [quiet]])
    alone = batch_of([[document]])
    model = make_model()
    both, one = objective()(model, batch)["image"], objective()(model, alone)["image"]
    assert both.count == 1 and float(both.sum.detach()) == pytest.approx(float(one.sum.detach()), rel=1e-5)


def test_packed_is_alone() -> None:
    pool, model = documents(5), make_model()
    packed = objective()(model, batch_of([pool[:3], pool[3:]]))
    alone = [objective()(model, batch_of([[document]])) for document in pool]
    for name, loss in packed.items():
        assert loss.count == sum(part[name].count for part in alone)
        # float32 sums in another order
        assert float(loss.sum.detach()) == pytest.approx(
            sum(float(part[name].sum.detach()) for part in alone), rel=2e-5
        )


def test_no_document_leaks_into_another_to_the_bit() -> None:
    pool, model = documents(3), make_model()
    clean = batch_of([pool])
    poisoned = [pool[0], Document((pool[1].segments[0], pool[1].segments[1]), pool[1].key), pool[2]]
    values = torch.full((2, 4, 4), 1e4)
    poisoned[1] = Document((Latent(values, "image"), pool[1].segments[1]), pool[1].key)
    dirty = batch_of([poisoned])
    slots = num_slots(pool[0], VOCABULARY)
    found = [_text_logits(model, batch, slots) for batch in (clean, dirty)]
    assert torch.equal(*found)


def _text_logits(model: nn.Module, batch: Batch, num_kept: int) -> Tensor:
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Outputs) -> None:
        kept.append(output.logits[batch.text_slots < num_kept])

    handle = model.register_forward_hook(keep)
    with torch.no_grad():
        objective()(model, batch)
    handle.remove()
    return kept[0]


def test_draws_depend_on_the_key_alone() -> None:
    pool = documents(6)
    one, other = batch_of([pool]), batch_of([[pool[3]], [pool[0], pool[5]], [pool[4], pool[1], pool[2]]])
    for group, again in zip(one.spans, other.spans, strict=True):
        assert sorted(group.t.tolist()) == sorted(again.t.tolist())
        assert torch.equal(group.noise.flatten().sort().values, again.noise.flatten().sort().values)
    assert len(set(torch.cat([group.t for group in one.spans]).tolist())) == sum(len(group.t) for group in one.spans)
    draw, again = KeyedDraw(FLOW, 0), KeyedDraw(FLOW, 1)
    latent = pool[0].segments[1]
    assert isinstance(latent, Latent)
    assert draw(pool[0], 0, latent).t == draw(pool[0], 0, latent).t != draw(pool[0], 1, latent).t
    assert draw(pool[0], 0, latent).t != again(pool[0], 0, latent).t
    noises = [draw(pool[0], number, latent).noise for number in (0, 0, 1)]
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])


def test_clean_latents_stay_clean() -> None:
    draw = KeyedDraw(FLOW, 0)
    latent = Latent(torch.zeros(2, 4, 4), "image", max_t=0.0)
    clean = draw(Document((latent,), ("x",)), 0, latent)
    assert clean.t == 0.0 and torch.equal(clean.noise, torch.zeros(2, 4, 4))
    capped = Latent(torch.zeros(2, 4, 4), "image", max_t=0.5)
    times = [draw(Document((capped,), ("x", i)), 0, capped).t for i in range(200)]
    assert 0.45 < max(times) <= 0.5


def test_config_names_a_run() -> None:
    assert run_config().objective.weight("text") == 1.0 and run_config().objective.weight("image") == 5.0

"""Rates, groups, what is frozen, and averages."""

import re

import pytest
import torch
from tiny import make_model
from torch import nn

from transfusion.train.ema import Ema
from transfusion.train.optimizer import (
    OptimizerConfig,
    Pace,
    build_optimizers,
    freeze,
    lr_factor,
    num_trained,
    set_lr,
    steps_before_cooldown,
    told_rates,
)

COSINE = OptimizerConfig(warmup_steps=10, schedule="cosine", final_ratio=0.1)
INVERSE = OptimizerConfig(warmup_steps=10, schedule="inverse_sqrt", final_ratio=0.2)
CONSTANT = OptimizerConfig(warmup_steps=10, schedule="constant", cooldown=0.4, final_ratio=0.0)


@pytest.mark.parametrize(
    ("config", "step", "factor"),
    [
        (COSINE, 0, 0.1),
        (COSINE, 9, 1.0),
        (COSINE, 10, 1.0),
        (COSINE, 55, 0.55),
        (COSINE, 100, 0.1),
        (CONSTANT, 4, 0.5),
        (CONSTANT, 30, 1.0),
        (CONSTANT, 60, 1.0),
        (CONSTANT, 80, 0.5),
        (CONSTANT, 99, 0.025),
        (INVERSE, 4, 0.5),
        (INVERSE, 9, 1.0),
        (INVERSE, 39, 0.5),
        (INVERSE, 89, 1 / 3),
        (INVERSE, 999, 0.2),
    ],
)
def test_rates(config: OptimizerConfig, step: int, factor: float) -> None:
    assert lr_factor(config, step, 100) == pytest.approx(factor)


def test_which_schedules_are_prolonged_without_a_jump() -> None:
    flat = CONSTANT.model_copy(update={"cooldown": 0.0})
    for config in (INVERSE, flat):
        assert all(lr_factor(config, step, 100) == lr_factor(config, step, 300) for step in range(100))
    assert steps_before_cooldown(CONSTANT, 100) == 61  # the step from 60 to 61 is the last at the peak
    assert all(lr_factor(CONSTANT, step, 100) == lr_factor(CONSTANT, step, 300) for step in range(61))
    assert lr_factor(CONSTANT, 61, 100) < 1
    assert [steps_before_cooldown(config, 100) for config in (COSINE, INVERSE, flat)] == [None] * 3


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (Pace(COSINE, 100), Pace(COSINE, 200), r"goes from 0.1 of its peak \(step 100\) to 0.5.* 0.1 at the last"),
        (Pace(COSINE, 100), Pace(INVERSE, 150), r"to 0.315 \(step 101\), and to 0.258 at .*150\); it goes up again"),
        (Pace(INVERSE, 100), Pace(INVERSE, 200), r"to 0.315 \(step 101\), and to 0.224 at the last \(step 200\)$"),
        (Pace(COSINE, 100), Pace(COSINE, 100), "^$"),
        (Pace(COSINE, 100), Pace(COSINE.model_copy(update={"lr": 1.0}), 100), "^the peak of lr goes from 0.0003 to 1$"),
    ],
)
def test_what_the_rate_does_is_told(old: Pace, new: Pace, told: str) -> None:
    assert re.search(told, told_rates(old, new, 100))


def test_frozen_parameters_are_named_by_patterns() -> None:
    model = make_model()
    freeze(model, ["trunk.*", "embed.weight"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(("trunk.", "embed."))}
    assert num_trained(model) == sum(p.numel() for name, p in model.named_parameters() if name not in frozen)
    for pattern, near in (("trunk", r"trunk\.\*"), ("embed.weigth", "embed.weight"), ("Trunk.*", r"trunk\.\*")):
        with pytest.raises(ValueError, match=f"'{re.escape(pattern)}' fits no parameter's name; near: .*{near}"):
            freeze(model, [pattern])
    with pytest.raises(ValueError, match="nothing is left to train"):
        freeze(model, ["*"])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_is_in_one_group(kind: str) -> None:
    model = make_model()
    optimizers = build_optimizers(model, OptimizerConfig.model_validate({"kind": kind, "lr": 1e-3, "muon_lr": 2e-3}))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())
    set_lr(optimizers, 0.5)
    assert {group["lr"] for group in groups} == ({5e-4} if kind == "adamw" else {5e-4, 1e-3})
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    tables = {id(model.embed.weight), *(id(p) for name, p in model.named_parameters() if ".tables." in name)}
    assert len(tables) == 3  # tokens, and positions along two axes
    assert undecayed == tables | {id(p) for p in model.parameters() if p.ndim < 2}


def test_adamw_has_the_settings_that_are_asked_for() -> None:
    config = OptimizerConfig(betas=(0.7, 0.8), eps=1e-3, weight_decay=0.2)
    parameter = nn.Linear(2, 2, bias=False)
    ours, theirs = parameter, nn.Linear(2, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    (optimizer,) = build_optimizers(ours, config)
    expected = torch.optim.AdamW(theirs.parameters(), lr=config.lr, betas=(0.7, 0.8), eps=1e-3, weight_decay=0.2)
    for step in range(3):  # the moments' decays show from the second step on
        for model, moved in ((ours, optimizer), (theirs, expected)):
            model.weight.grad = torch.tensor([[1.0, -2.0], [0.5, 3.0]]) * (1 + step)
            moved.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7)  # fused against plain: float32 rounding


def test_muon_takes_the_trunk_s_matrices_alone() -> None:
    model = make_model()
    optimizers = build_optimizers(model, OptimizerConfig(kind="muon"))
    taken = {id(p) for group in optimizers[1].param_groups for p in group["params"]}
    expected = {id(p) for name, p in model.named_parameters() if name.startswith("trunk.blocks.") and p.ndim == 2}
    assert taken == expected and taken


def test_average_moves_towards_the_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    ema = Ema(model, 0.9)
    nn.init.constant_(model.weight, 2.0)
    ema.update(model, 0)  # decay 1 / 10 at first
    assert float(ema.model.weight) == pytest.approx(0.1 * 1 + 0.9 * 2)
    ema.update(model, 10_000)
    assert float(ema.model.weight) == pytest.approx(0.9 * 1.9 + 0.1 * 2)
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_betas_epsilon_and_decay_reach_adamw(kind: str) -> None:
    """Two steps by hand, Kingma and Ba 2015 with Loshchilov and Hutter's decay."""
    betas, eps, decay, lr = (0.5, 0.75), 0.25, 0.5, 0.125
    facts = {"kind": kind, "betas": betas, "eps": eps, "weight_decay": decay, "lr": lr}
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1.0)
    optimizer = build_optimizers(model, OptimizerConfig.model_validate(facts))[0]
    weight, first, second = 1.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -3.0), start=1):
        model.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        direction = first / (1 - betas[0] ** step) / ((second / (1 - betas[1] ** step)) ** 0.5 + eps)
        weight = weight * (1 - lr * decay) - lr * direction
        assert float(model.weight.detach()) == pytest.approx(weight, rel=1e-12)

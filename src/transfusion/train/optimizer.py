"""Optimizers, the learning-rate schedule, and which parameters are trained at all. They address parameters by name, and
know nothing of losses or data.
"""

import difflib
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from transfusion.train.muon import BatchedMuon

TRUNK_PREFIX = "trunk.blocks."
TOKEN_TABLE, POSITION_TABLES = "embed.", ".positions.tables."
ADAMW_ENTRIES = frozenset({"step", "exp_avg", "exp_avg_sq"})
MUON_ENTRIES = frozenset({"momentum_buffer"})
NUM_NEAR = 3
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(BaseModel):
    """AdamW as in the paper, optionally with Muon for the trunk's matrices."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: the trunk's matrices by Muon, the rest AdamW"
    )
    lr: float = Field(default=3e-4, gt=0, description="Peak rate of AdamW")
    muon_lr: float = Field(default=2e-3, gt=0, description="Peak rate of Muon, matched to AdamW's update size")
    muon_iterations: int = Field(
        default=5, gt=0, description="Newton-Schulz iterations of Muon; 3 are cheaper and hardly coarser"
    )
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.95), description="AdamW's moment decays, each in [0, 1)")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(
        default=0.1, ge=0, description="Decoupled decay of matrices; vectors and tables have none"
    )
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient over all parameters")
    warmup_steps: int = Field(default=100, ge=0, description="Steps of linear warm-up")
    schedule: Literal["cosine", "constant", "inverse_sqrt"] = Field(
        default="cosine",
        description="After warm-up: cosine, constant, or inverse_sqrt: sqrt(warm-up / steps). To prolong the run later "
        "(--change) makes no jump with inverse_sqrt, and with constant before its cool-down or with cooldown 0",
    )
    cooldown: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="Share of all steps in which 'constant' falls linearly; the last checkpoint before is kept",
    )
    final_ratio: float = Field(
        default=0.05, ge=0, le=1, description="Rate at the end over the peak; of inverse_sqrt the least"
    )


def lr_factor(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Return the learning rate of a step over its peak: a pure function, so resuming needs no state.

    Args:
        config: The schedule.
        step: Step about to be taken, from 0.
        num_steps: All steps of the run.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        progress = (step - config.warmup_steps) / max(num_steps - config.warmup_steps, 1)
        return config.final_ratio + (1 - config.final_ratio) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    if config.schedule == "inverse_sqrt":
        return max(config.final_ratio, math.sqrt(max(config.warmup_steps, 1) / (step + 1)))
    left = (num_steps - step) / _cooldown_steps(config, num_steps)
    return config.final_ratio + (1 - config.final_ratio) * min(left, 1.0)


def _cooldown_steps(config: OptimizerConfig, num_steps: int) -> float:
    return max(config.cooldown * num_steps, 1)


def steps_before_cooldown(config: OptimizerConfig, num_steps: int) -> int | None:
    """Return after how many steps at most a longer run still has the rates of this one; None where there is no
    cool-down, or nothing else.
    """
    if config.schedule != "constant" or config.cooldown == 0:
        return None
    return math.floor(num_steps - _cooldown_steps(config, num_steps)) + 1


class Pace(NamedTuple):
    """What decides the rates of a run: the optimizer's settings and the number of all steps."""

    optimizer: OptimizerConfig
    num_steps: int

    def factor(self, step: int) -> float:
        """Return the rate of a step, from 0, over its peak."""
        return lr_factor(self.optimizer, step, self.num_steps)


def told_rates(old: Pace, new: Pace, step: int) -> str:
    """Say what the rate does where a run that has done ``step`` steps goes on at another pace.

    Returns:
        A sentence; empty where no rate changes.
    """
    shared = range(step, min(old.num_steps, new.num_steps))
    is_other = old.num_steps != new.num_steps or any(old.factor(at) != new.factor(at) for at in shared)
    told = [_told_factors(old, new, step)] if is_other and step < new.num_steps else []
    names = [("lr", old.optimizer.lr, new.optimizer.lr), ("muon_lr", old.optimizer.muon_lr, new.optimizer.muon_lr)]
    told += [f"the peak of {name} goes from {one:.3g} to {other:.3g}" for name, one, other in names if one != other]
    return "; ".join(told)


def _told_factors(old: Pace, new: Pace, step: int) -> str:
    before, after, end = old.factor(max(step - 1, 0)), new.factor(step), new.factor(new.num_steps - 1)
    if before == after == end:
        return f"the rate stays at {before:.3g} of its peak"
    told = (
        f"the rate goes from {before:.3g} of its peak (step {step}) to {after:.3g} (step {step + 1}), and to {end:.3g} "
        f"at the last (step {new.num_steps})"
    )
    if after <= before or step < new.optimizer.warmup_steps:
        return told
    return (
        f"{told}; it goes up again, which can cost what was learnt: train.optimizer.schedule=inverse_sqrt is prolonged "
        "without a jump, and so is constant with cooldown=0, or from before its cool-down"
    )


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let no step move the parameters whose names fit one of the patterns, in which ``*`` stands for anything.

    Raises:
        ValueError: A pattern fits no name, or no parameter is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        fitting = [name for name in named if fnmatchcase(name, pattern)]
        if not fitting:
            parts = [".".join(name.split(".")[:depth]) + ".*" for name in named for depth in (1, 2, 3)]
            known = list(dict.fromkeys([*parts, *named]))
            near = difflib.get_close_matches(pattern, known, n=NUM_NEAR, cutoff=0.3) or list(named)[:NUM_NEAR]
            raise ValueError(f"{pattern!r} fits no parameter's name; near: {', '.join(near)}")
        for name in fitting:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ValueError(f"{', '.join(patterns)} fit all {len(named)} parameters: nothing is left to train")


def num_trained(model: nn.Module) -> int:
    """Count the numbers that steps move."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """Build the optimizers over all parameters that are not frozen; a group has its peak rate as ``peak_lr``."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    muon = {name for name in named if config.kind == "muon" and name.startswith(TRUNK_PREFIX) and named[name].ndim == 2}
    decayed = [p for name, p in named.items() if name not in muon and p.ndim >= 2 and not _is_table(name)]
    is_decayed = {id(parameter) for parameter in decayed}
    plain = [p for name, p in named.items() if name not in muon and id(p) not in is_decayed]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "peak_lr": config.lr},
        {"params": plain, "weight_decay": 0.0, "peak_lr": config.lr},
    ]
    optimizers: list[Optimizer] = [AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)]
    if muon:
        matrices = {"params": [named[name] for name in sorted(muon)], "peak_lr": config.muon_lr}
        optimizers.append(
            BatchedMuon(
                [matrices],
                lr=config.muon_lr,
                weight_decay=config.weight_decay,
                ns_steps=config.muon_iterations,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _is_table(name: str) -> bool:
    """Return whether a parameter is looked up and not multiplied by: embeddings of tokens and of positions."""
    return name.startswith(TOKEN_TABLE) or POSITION_TABLES in name


def set_lr(optimizers: list[Optimizer], factor: float) -> None:
    """Set the rate of all groups to a factor of their peaks."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Flatten the state of optimizers to named tensors, ``"optimizer.parameter.entry"``."""
    return {
        f"{number}.{index}.{name}": value
        for number, optimizer in enumerate(optimizers)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put the state back that ``optimizer_tensors`` took.

    Raises:
        ValueError: It is not of these optimizers and parameters.
    """
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        number, index, name = key.split(".", 2)
        states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        _check_state(optimizer, state)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_state(optimizer: Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    entries = MUON_ENTRIES if isinstance(optimizer, BatchedMuon) else ADAMW_ENTRIES
    parameters: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, found in state.items():
        if not 0 <= index < len(parameters) or found.keys() != entries:
            raise ValueError(f"parameter {index} of {len(parameters)} has {sorted(found)}; expected {sorted(entries)}")
        for name, value in found.items():
            expected = () if name == "step" else tuple(parameters[index].shape)
            if tuple(value.shape) != expected:
                raise ValueError(f"{name} of parameter {index} has shape {tuple(value.shape)}; expected {expected}")


def clip_gradient(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradient down to a largest norm and return the norm it had."""
    return torch.nn.utils.clip_grad_norm_(model.parameters(), largest, error_if_nonfinite=False)

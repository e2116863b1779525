"""Bugs in schedules, samplers and guidance."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("guidance: sign", "diffusion/guidance.py", "(conditional - unconditional)", "(unconditional - conditional)",
           "diffusion/test_guidance.py"),
    Mutant("schedule: time runs backwards", "diffusion/schedule.py", "torch.linspace(1, 0, num_steps + 1",
           "torch.linspace(0, 1, num_steps + 1", "diffusion/test_schedule.py"),
    Mutant("schedule: noise limit ignored", "diffusion/schedule.py", "t = shifted(t, config.shift) * max_t",
           "t = shifted(t, config.shift)", "diffusion/test_schedule.py"),
    Mutant("samplers: Heun is Euler", "diffusion/samplers.py", "0.5 * (slope + _velocity(guess, x_0, then, schedule))",
           "slope", "diffusion/test_samplers.py"),
    Mutant("samplers: no fresh noise", "diffusion/samplers.py", "x = mean + std * noise(step)", "x = mean",
           "diffusion/test_samplers.py"),
]  # fmt: skip

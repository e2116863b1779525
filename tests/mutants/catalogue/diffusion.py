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
    Mutant("samplers: the first estimate is asked at t = 1", "diffusion/samplers.py", "if now < 1 or not schedule.begins_inside:",
           "if True:", "diffusion/test_process.py -k error_of_the_noise"),
    Mutant("samplers: every process begins inside", "diffusion/samplers.py", "now < 1 or not schedule.begins_inside", "now < 1",
           "diffusion/test_process.py -k first_query"),
    Mutant("process: the straight schedule is asked for noise at t = 1", "diffusion/process.py",
           ', is_noise_predicted=config.prediction == "noise"', "", "diffusion/test_process.py -k first_query"),
    Mutant("prediction: a floor under alpha", "diffusion/prediction.py", "_quotient(x_t - sigma * output, alpha)",
           "(x_t - sigma * output) / alpha.clamp(min=1e-4)", "diffusion/test_prediction.py -k last_level"),
    Mutant("prediction: a floor under sigma", "diffusion/prediction.py", "_quotient(x_t - alpha * output, sigma)",
           "(x_t - alpha * output) / sigma.clamp(min=1e-4)", "diffusion/test_prediction.py -k at_the_ends"),
    Mutant("schedule: sigma cancels near the data", "diffusion/schedule.py", "squared.clamp(min=0, max=1).sqrt()",
           "(1 - self.alpha(t).square()).clamp(min=0).sqrt()", "diffusion/test_schedule.py -k cancel"),
    Mutant("schedule: levels are ignored", "diffusion/schedule.py", "if config.num_levels is not None:", "if False:",
           "diffusion/test_schedule.py -k discrete_levels"),
    Mutant("schedule: levels exceed the noise limit", "diffusion/schedule.py", "math.floor(max_t * num_levels + ROUNDING)",
           "num_levels", "diffusion/test_schedule.py -k limit"),
    Mutant("guidance: one value is rescaled", "diffusion/guidance.py", "torch.where(found > 0, wanted / found, 1)",
           "conditional.std() / guided.std().clamp(min=1e-8)", "diffusion/test_guidance.py"),
]  # fmt: skip

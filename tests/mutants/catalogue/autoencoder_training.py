"""Seeded bugs of the training of autoencoders."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("quantise: the commitment draws codes", "autoencoder/quantise.py", "(found.detach() - vectors).square()", "(found - vectors).square()", "autoencoder/test_quantise.py -k surrogate"),
    Mutant("quantise: no straight-through gradient", "autoencoder/quantise.py", "(vectors + (found - vectors).detach())", "found", "autoencoder/test_quantise.py -k surrogate"),
    Mutant("quantise: moments of a revived code stay", "autoencoder/quantise.py", "        moment[codes] = 0.0", "        pass", "autoencoder/test_quantise.py -k forgotten"),
    Mutant("quantise: every step revives alike", "autoencoder/quantise.py", 'generator(seed, "revival", step)', 'generator(seed, "revival", 0)', "autoencoder/test_quantise.py -k forgotten"),
    Mutant("network: half the KL", "autoencoder/network.py", "return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)", "return 0.5 * (mean.square() + logvar.exp() - 1.0 - 0.5 * logvar)", "autoencoder/test_network.py -k closed"),
    Mutant("network: every step draws alike", "autoencoder/network.py", 'draw.seed, "posterior", draw.step', 'draw.seed, "posterior", 0', "autoencoder/test_network.py -k keyed_and_follows"),
    Mutant("losses: a hinge the wrong way", "autoencoder/losses.py", "functional.relu(1.0 + made.float())", "functional.relu(1.0 - made.float())", "autoencoder/test_losses.py -k closed"),
    Mutant("features: padded alike on all sides", "autoencoder/features.py", "(total // 2, total - total // 2)", "(total - total // 2, total // 2)", "autoencoder/test_losses.py -k halving"),
    Mutant("measures: the kernel distance counts the diagonal", "autoencoder/measures.py", "values.sum() - values.trace()", "values.sum()", "autoencoder/test_losses.py -k bias"),
    Mutant("measures: similarity without the spread", "autoencoder/measures.py", "2 * cov + C2", "var_x + var_y + C2", "autoencoder/test_losses.py -k constant"),
]  # fmt: skip

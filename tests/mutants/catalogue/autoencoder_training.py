"""Seeded bugs of the training of autoencoders."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("quantise: the commitment draws codes", "autoencoder/quantise.py", "(found.detach() - vectors).square()", "(found - vectors).square()", "autoencoder/test_quantise.py -k surrogate"),
    Mutant("quantise: no straight-through gradient", "autoencoder/quantise.py", "(vectors + (found - vectors).detach())", "found", "autoencoder/test_quantise.py -k surrogate"),
    Mutant("quantise: moments of a revived code stay", "autoencoder/quantise.py", "        moment[codes] = 0.0", "        pass", "autoencoder/test_quantise.py -k forgotten"),
    Mutant("quantise: every step revives alike", "autoencoder/quantise.py", 'generator(seed, "revival", step)', 'generator(seed, "revival", 0)', "autoencoder/test_quantise.py -k forgotten"),
    Mutant("architecture: half the KL", "autoencoder/architecture.py", "return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)", "return 0.5 * (mean.square() + logvar.exp() - 1.0 - 0.5 * logvar)", "autoencoder/test_kl_and_vq.py -k closed"),
    Mutant("architecture: every step draws alike", "autoencoder/architecture.py", 'draw.seed, "posterior", draw.step', 'draw.seed, "posterior", 0', "autoencoder/test_kl_and_vq.py -k keyed_and_follows"),
    Mutant("losses: a hinge the wrong way", "autoencoder/losses.py", "functional.relu(1.0 + made.float())", "functional.relu(1.0 - made.float())", "autoencoder/test_losses.py -k closed"),
    Mutant("features: padded alike on all sides", "autoencoder/features.py", "(total // 2, total - total // 2)", "(total - total // 2, total // 2)", "autoencoder/test_losses.py -k halving"),
    Mutant("measures: the kernel distance counts the diagonal", "autoencoder/measures.py", "values.sum() - values.trace()", "values.sum()", "autoencoder/test_losses.py -k bias"),
    Mutant("measures: similarity without the spread", "autoencoder/measures.py", "2 * cov + C2", "var_x + var_y + C2", "autoencoder/test_losses.py -k constant"),
    Mutant("gan: a step late", "train/autoencoder/state.py", "self.step + 1 >= self.config.losses.gan_start", "self.step >= self.config.losses.gan_start", "train/test_autoencoder.py -k begins_at"),
    Mutant("gan: the network's loss moves the discriminator", "train/autoencoder/state.py", "        discriminator.requires_grad_(False)  # but for its own loss\n", "", "train/test_autoencoder.py -k reaches_its_own"),
    Mutant("gan: the judgement reaches no network", "train/autoencoder/loop.py", "            total = total + config.losses.gan * ratio * losses[\"gan\"]\n", "", "train/test_autoencoder.py -k judgement_from"),
    Mutant("revival: the average keeps dead codes", "train/autoencoder/state.py", "            tables.append(self.ema.model.codebook.data)\n", "            pass\n", "train/test_autoencoder.py -k everywhere"),
    Mutant("revival: the optimizer goes on with dead codes", "train/autoencoder/state.py", "[entries[name] for name in MOMENTS if name in entries]", "[]", "train/test_autoencoder.py -k everywhere"),
    Mutant("resume: the discriminator begins at nothing", "train/autoencoder/state.py", "        load_weights(state.discriminator, folder / DISCRIMINATOR_FILE)\n", "        pass\n", "train/test_autoencoder.py -k without_a_break"),
    Mutant("resume: the averages are the weights", "train/autoencoder/state.py", "        load_weights(state.best_network.network, folder / AUTOENCODER_FILE)\n", "        pass\n", "train/test_autoencoder.py -k without_a_break"),
    Mutant("resume: the moments begin at nothing", "train/autoencoder/state.py", "        load_optimizer_tensors(state.optimizers, tensors)\n", "        pass\n", "train/test_autoencoder.py -k without_a_break"),
    Mutant("checkpoint: others load the weights that are no average", "train/autoencoder/state.py", "save_tensors(self.best_network.network.state_dict(), folder / AUTOENCODER_FILE)", "save_tensors(self.network.network.state_dict(), folder / AUTOENCODER_FILE)", "train/test_autoencoder.py -k diffusers"),
    Mutant("backbones: another file passes", "train/autoencoder/judges.py", "digest is not None and digest != backbone.digest", "False", "train/test_autoencoder.py -k known_by"),
    Mutant("pictures: a picture counts for each caption", "train/autoencoder/pictures.py", "rows=list(once.values())", "rows=found.rows", "train/test_autoencoder.py -k each_once"),
    Mutant("crops: every visit sees the same", "train/autoencoder/pictures.py", "config.train.seed, \"augment\", *key", "config.train.seed, \"augment\", key[0]", "train/test_autoencoder.py -k sees_another"),
    Mutant("settings: what reaches nothing passes", "train/autoencoder/settings.py", "    check_reach(changed, paths, NEEDS, MOOT)\n", "", "train/test_autoencoder.py -k cannot_be"),
    Mutant("between: measured on the weights that are no average", "autoencoder_run.py", "    network, sums, count = state.best_network,", "    network, sums, count = state.network,", "train/test_autoencoder.py -k averaged_network"),
    Mutant("one for the other: an autoencoder draws", "train/saved.py", "        if is_of_autoencoder(text):", "        if False:", "cli/test_train_autoencoder.py -k taken_for"),
]  # fmt: skip

"""The seeded bugs, by room of the house."""

from mutants.catalogue import (
    autoencoder,
    autoencoder_training,
    cli,
    core,
    data,
    diffusion,
    formats,
    generate,
    latents,
    mixture,
    model,
    records,
    sides,
    starts,
    train,
    turns,
    verbs,
)
from mutants.mutant import Mutant

MUTANTS: list[Mutant] = [
    *core.MUTANTS,
    *model.MUTANTS,
    *diffusion.MUTANTS,
    *generate.MUTANTS,
    *data.MUTANTS,
    *records.MUTANTS,
    *sides.MUTANTS,
    *formats.MUTANTS,
    *autoencoder.MUTANTS,
    *latents.MUTANTS,
    *mixture.MUTANTS,
    *train.MUTANTS,
    *autoencoder_training.MUTANTS,
    *verbs.MUTANTS,
    *cli.MUTANTS,
    *starts.MUTANTS,
    *turns.MUTANTS,
]

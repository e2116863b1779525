"""Bugs in augmentation and in folders of latents."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "augment: every visit sees the same",
        "data/documents.py",
        'generator(self.encoder.seed, "augment", *key)',
        'generator(self.encoder.seed, "augment", *key[:2])',
        "data/test_augment.py -k half",
    ),
    Mutant(
        "augment: captions of one picture share a view",
        "data/documents.py",
        'generator(self.encoder.seed, "augment", *key)',
        'generator(self.encoder.seed, "augment", row.file, visit)',
        "data/test_augment.py -k half",
    ),
    Mutant(
        "augment: held-out pictures are augmented",
        "data/sources.py",
        'unaugmented(config.model_copy(update={"split": split}))',
        'config.model_copy(update={"split": split})',
        "data/test_augment.py -k held_out",
    ),
    Mutant(
        "augment: what is evaluated is augmented",
        "cli/verbs.py",
        "unaugmented(_settled(data, model.config.data, overrides))",
        "_settled(data, model.config.data, overrides)",
        "data/test_augment.py -k evaluated",
    ),
    Mutant(
        "augment: a crop changes the aspect",
        "data/augment.py",
        "box = None if crop == 1 else (left, top, min(left + side, 1.0)",
        "box = None if crop == 1 else (left, top, min(left + crop, 1.0)",
        "data/test_augment.py -k depend",
    ),
    Mutant(
        "augment: crops stand in the middle",
        "data/augment.py",
        "left, top = left * (1.0 - side), top * (1.0 - side)",
        "left, top = 0.5 * (1.0 - side), 0.5 * (1.0 - side)",
        "data/test_augment.py -k crops_stand",
    ),
    Mutant(
        "augment: pictures are kept at the model's size",
        "data/augment.py",
        "scale = min(1.0 / crop,",
        "scale = min(1.0,",
        "data/test_augment.py -k full_detail",
    ),
    Mutant(
        "augment: flips upside down",
        "data/augment.py",
        "np.ascontiguousarray(picture[:, ::-1])",
        "np.ascontiguousarray(picture[::-1])",
        "data/test_augment.py -k half",
    ),
    Mutant(
        "augment: text is flipped in silence",
        "data/sources.py",
        "        if config != unaugmented(config):",
        "        if False:",
        "data/test_augment.py -k text_is",
    ),
]

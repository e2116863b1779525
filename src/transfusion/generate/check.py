"""What a request is refused for, before any work: a fault that is found here reaches no other request.

It must not know how a request is done.
"""

import torch

from transfusion.generate.options import GenerationOptions
from transfusion.segments import Document, Latent, Text, Vocabulary


def check_request(prompt: Document, options: GenerationOptions, vocabulary: Vocabulary) -> None:
    """Check a prompt and its options against a model's vocabulary.

    Raises:
        KeyError: A modality is unknown.
        ValueError: A shape is missing or does not fit, in the options or the prompt; a token id is outside the
            vocabulary; a latent is not float32, or not finite.
    """
    for segment in prompt.segments:
        if isinstance(segment, Text):
            _check_tokens(segment.tokens, vocabulary.text_size, "the prompt's text")
        else:
            _check_latent(segment, vocabulary)
    for name, shape in options.shapes.items():
        vocabulary.modality(vocabulary.index(name)).grid(shape)
    if options.begin_with is not None and options.begin_with not in options.shapes:
        raise ValueError(f"begin_with {options.begin_with!r} has no entry in shapes {sorted(options.shapes)}")
    _check_tokens(options.negative, vocabulary.text_size, "negative")
    _check_tokens(options.stop_tokens, vocabulary.size, "stop_tokens")


def _check_tokens(tokens: tuple[int, ...], size: int, where: str) -> None:
    outside = [token for token in tokens if not 0 <= token < size]
    if outside:
        raise ValueError(f"token id {outside[0]} in {where} is outside [0, {size}); encode with the model's tokenizer")


def _check_latent(latent: Latent, vocabulary: Vocabulary) -> None:
    values = latent.values
    vocabulary.modality(vocabulary.index(latent.modality)).grid(values.shape)
    if values.dtype is not torch.float32:
        raise ValueError(f"a latent {latent.modality!r} of the prompt is {values.dtype}; expected float32: .float()")
    if not bool(values.isfinite().all()):
        count = int((~values.isfinite()).sum())
        raise ValueError(f"a latent {latent.modality!r} of the prompt has {count} values that are not finite")

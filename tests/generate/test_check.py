"""What is refused before any work."""

import pytest
import torch
from tiny import IMAGE_SHAPE, image, make_model, text

from transfusion.generate.check import check_request
from transfusion.generate.options import GenerationOptions
from transfusion.segments import Document, Latent, Segment, Text

VOCABULARY = make_model().vocabulary
BROKEN = torch.zeros(IMAGE_SHAPE).index_fill(1, torch.tensor([2]), torch.inf)


def check(*segments: Segment, **options: object) -> None:
    """Check a prompt of these segments."""
    wanted = GenerationOptions.model_validate({"shapes": {"image": IMAGE_SHAPE}, **options})
    check_request(Document(segments, is_complete=False), wanted, VOCABULARY)


def test_good_requests_pass() -> None:
    check()
    check(text(1), image(1), Text((0, VOCABULARY.text_size - 1)), begin_with="image", stop_tokens=(VOCABULARY.eos,))


@pytest.mark.parametrize(
    ("segments", "fault"),
    [
        ((Text((1, VOCABULARY.text_size)),), r"token id 20 in the prompt's text is outside \[0, 20\)"),
        ((text(1), Text((-1,))), "token id -1"),
        ((Latent(torch.zeros(2, 5, 5), "image"),), "not positive multiples"),
        ((Latent(torch.zeros(2, 20, 20), "image"),), "has positions for"),
        ((Latent(torch.zeros(3, 4, 4), "image"),), "expected \\(2, axis_0"),
        ((Latent(torch.zeros(IMAGE_SHAPE, dtype=torch.float64), "image"),), "is torch.float64; expected float32"),
        ((Latent(torch.zeros(IMAGE_SHAPE, dtype=torch.int64), "image"),), "is torch.int64; expected float32"),
        ((Latent(BROKEN, "image"),), "has 8 values that are not finite"),
        ((Latent(torch.full(IMAGE_SHAPE, torch.nan), "image"),), "32 values that are not finite"),
    ],
)
def test_bad_prompts_are_named(segments: tuple[Segment, ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check(*segments)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"begin_with": "image", "shapes": {}}, "begin_with 'image' has no entry in shapes"),
        ({"shapes": {"image": (2, 3, 4)}}, "not positive multiples"),
        ({"shapes": {"image": (2, -4, -4)}}, "not positive multiples"),
        ({"shapes": {"image": (2, 0, 4)}}, "not positive multiples"),
        ({"shapes": {"image": (2, 20, 20)}}, "has positions for"),
        ({"shapes": {"sound": (3, 4, 4)}}, "expected \\(3, axis_0"),
        ({"stop_tokens": (99,)}, "token id 99 in stop_tokens"),
        ({"tokens": {"temperature": torch.inf}}, "finite"),
        ({"denoising": {"shift": torch.inf}}, "finite"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check(text(1), **options)


def test_unknown_modalities_are_named() -> None:
    with pytest.raises(KeyError, match="no modality 'video'"):
        check(shapes={"video": (2, 4, 4)})
    with pytest.raises(KeyError, match="no modality 'video'"):
        check(Latent(torch.zeros(IMAGE_SHAPE), "video"))

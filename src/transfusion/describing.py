"""Words about pictures: captions and answers, for one picture and for many. It must not know the engine."""

from collections.abc import Sequence
from typing import overload

from transfusion.asking import MAX_CAPTION_TOKENS, Asked
from transfusion.data.turns import told_question
from transfusion.prompts import PictureLike, Pictures, Texts, check_said, paired, several_pictures


@overload
def caption(self: Asked, images: PictureLike) -> str: ...
@overload
def caption(self: Asked, images: Sequence[PictureLike]) -> list[str]: ...
def caption(self: Asked, images: Pictures) -> str | list[str]:
    """Describe a picture, or each of a list.

    Raises:
        DataError: A picture cannot be read; names it by its place in the list, and nothing is described.
        ConfigError: The model knows no pictures.
    """
    several, is_many = several_pictures(images)
    self.warn_untold("caption")
    prompts = self.asking.prompts
    told = [prompts.encoder.caption_prompt(picture) for picture in prompts.pictures(several)]
    texts = self.asking.texts(told, MAX_CAPTION_TOKENS)
    return texts if is_many else texts[0]


@overload  # a string is a sequence of strings to the checker, and never to us
def ask(self: Asked, image: PictureLike, question: str) -> str: ...  # pyright: ignore[reportOverlappingOverload]
@overload
def ask(self: Asked, image: Pictures, question: Texts) -> list[str]: ...
def ask(self: Asked, image: Pictures, question: Texts) -> str | list[str]:
    """Answer a question about a picture; or one about each, several about one picture, or one about each of several.

    Raises:
        DataError: A picture cannot be read.
        ConfigError: A question is empty, there are not as many as pictures, or the model knows no pictures.
    """
    pictures, questions, is_many = paired(image, question, "a question")
    check_said([told_question(asked) for asked in questions], "a question")
    self.warn_untold("ask")
    prompts = self.asking.prompts
    found = prompts.pictures(pictures)
    told = [prompts.encoder.question_prompt(picture, asked) for picture, asked in zip(found, questions, strict=True)]
    texts = self.asking.texts(told, self.asking.answer_tokens)
    return texts if is_many else texts[0]


def ask_many(self: Asked, images: Sequence[PictureLike], questions: Sequence[str]) -> list[str]:
    """Answer one question about each picture."""
    return ask(self, list(images), list(questions))

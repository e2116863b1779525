"""The built-in world: coloured shapes, their captions, questions, edits and stories, and an exact detector.

Endless and keyed: everything is a function of the generator that is passed in. It must not know models.
"""

from transfusion.data.shapes.detect import Detection, detect, edit_is_right
from transfusion.data.shapes.language import caption, caption_is_right, is_test_text, parse
from transfusion.data.shapes.prompts import CATEGORIES, Category, Prompt, prompts, satisfies, scene_for
from transfusion.data.shapes.render import render
from transfusion.data.shapes.scene import Scene, SceneObject, is_test_scene, sample_scene
from transfusion.data.shapes.tasks import (
    MOST_PAGES,
    Edit,
    QuestionAnswer,
    answer_is_right,
    corpus,
    edit,
    question,
    story,
    true_answer,
)

__all__ = [
    "CATEGORIES",
    "MOST_PAGES",
    "Category",
    "Detection",
    "Edit",
    "Prompt",
    "QuestionAnswer",
    "Scene",
    "SceneObject",
    "answer_is_right",
    "caption",
    "caption_is_right",
    "corpus",
    "detect",
    "edit",
    "edit_is_right",
    "is_test_scene",
    "is_test_text",
    "parse",
    "prompts",
    "question",
    "render",
    "sample_scene",
    "satisfies",
    "scene_for",
    "story",
    "true_answer",
]

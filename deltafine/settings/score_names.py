"""How settings name a score: a built-in one, or a function of the user's own."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

BUILT_IN_SCORES = ("mean-iou",)
"""Scores that can be asked for by name; any other is a function of the user's own."""
_OWN_SCORE = re.compile(r"[\w.]+:[\w.]+")


def _score_as_text(score: Any) -> str:
    """A score as settings hold it: its name, or ``module:function``; a function of a module says the latter itself."""
    text = score
    if callable(score):
        text = f"{getattr(score, '__module__', None)}:{getattr(score, '__qualname__', '')}"
        if text.startswith("__main__:"):
            raise PydanticCustomError("score", "it is defined in the program itself: put it into a module of its own")
    if isinstance(text, str) and (text in BUILT_IN_SCORES or _OWN_SCORE.fullmatch(text)):
        return text
    raise PydanticCustomError("score", "it must be mean-iou, or module:function of a score of your own")


ScoreText = Annotated[str, BeforeValidator(_score_as_text)]
"""``mean-iou``, or ``module:function``."""

"""The page of the Python API: everything public is on it, and the examples in the docstrings run."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import deltafine
from tests.small_runs import FAST, write_small_model, write_small_videos

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
NAMES = re.findall(r"^::: ([\w.]+)$", PAGE.read_text("utf-8"), re.MULTILINE)
EXCEPTIONS = ("DeltafineError", "DeltafineWarning")


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, videos and a finished run."""
    folder = tmp_path_factory.mktemp("api")
    model, videos = write_small_model(folder / "model.keras"), write_small_videos(folder / "videos")
    deltafine.refine(model, videos, folder / "run", epochs=1, **FAST)
    return folder


def test_everything_public_is_on_the_page() -> None:
    on_page = {named(path) for path in NAMES}
    assert {getattr(deltafine, name) for name in deltafine.__all__ if name != "__version__"} <= on_page


@pytest.mark.parametrize("path", NAMES)
def test_the_example_in_a_docstring_runs(path: str, folder: Path) -> None:
    import keras
    import numpy as np

    found = named(path)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(found) or "")
    assert examples or path.rpartition(".")[2] in EXCEPTIONS
    known = {"deltafine": deltafine, "keras": keras, "np": np, found.__name__: found}
    test = doctest.DocTest(examples, known, path, str(PAGE), 0, None)
    said: list[str] = []
    with contextlib.chdir(folder):
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not result.failed, "".join(said)

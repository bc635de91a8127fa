"""What `import deltafine` gives, and what it leaves alone until it is used."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import deltafine
from deltafine.report import write_report
from tests.report.builders import make_report
from tests.small_runs import small_model, write_small_videos

PUBLIC = (
    "DeltaActivation",
    "find_activations",
    "insert_deltas",
    "open_dataset",
    "refine",
    "bench",
    "export",
    "inspect_model",
    "measure_model",
    "measure",
    "load_report",
    "DeltafineError",
)


def in_a_process(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_names_are_there_and_are_not_their_modules(name: str) -> None:
    assert name in deltafine.__all__
    assert name in dir(deltafine)
    assert callable(getattr(deltafine, name))


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'refin'"):
        _ = deltafine.refin


def test_import_loads_nothing_heavy() -> None:
    done = in_a_process(
        "import sys, deltafine\n"
        "print(sorted({'tensorflow', 'keras', 'numpy', 'av', 'pydantic', 'rich', 'typer'} & sys.modules.keys()))"
    )
    assert done.stdout.strip() == "[]", done.stderr


HEAVY = ("tensorflow", "keras", "numba", "h5py", "numpy", "av", "matplotlib", "PIL", "jinja2")


def loaded_by(*arguments: object) -> tuple[str, list[str]]:
    """What a command shows, and which of the heavy libraries it has loaded in the end."""
    done = in_a_process(
        "import atexit, sys\n"
        f"atexit.register(lambda: print('heavy:', *(name for name in {HEAVY!r} if name in sys.modules)))\n"
        f"sys.argv = ['deltafine', *{[str(one) for one in arguments]!r}]\n"
        "from deltafine.cli import main\n"
        "main()"
    )
    assert done.returncode == 0, done.stderr
    shown, _, heavy = done.stdout.rpartition("heavy:")
    return shown, heavy.split()


@pytest.mark.parametrize(
    "command", [(), ("inspect",), ("data",), ("refine",), ("report",), ("export",), ("run",), ("bench",), ("demo",)]
)
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    shown, heavy = loaded_by(*command, "--help")
    assert "Usage: deltafine" in shown
    assert heavy == []


def test_a_saved_report_is_shown_without_anything_heavy_and_only_the_page_draws(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path / "run")
    for format, needed in (
        ("table", []),
        ("json", []),
        ("csv", []),
        ("markdown", []),
        ("junit", []),
        ("html", ["numpy", "matplotlib", "PIL", "jinja2"]),
    ):
        _, heavy = loaded_by("report", tmp_path / "run", "--format", format, "--max-accuracy-drop", "50%")
        assert set(heavy) <= set(needed), format


def test_data_loads_what_reads_videos_and_no_more(tmp_path: Path) -> None:
    shown, heavy = loaded_by("data", write_small_videos(tmp_path / "videos", per_class=1))
    assert "2 videos" in shown
    assert set(heavy) <= {"av", "numpy", "h5py"}


def test_the_data_room_and_the_report_do_not_load_tensorflow() -> None:
    done = in_a_process(
        "import sys, deltafine\n"
        "deltafine.open_dataset, deltafine.load_report\n"
        "print(sorted({'tensorflow', 'keras'} & sys.modules.keys()))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_command_knows_the_version_of_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "deltafine", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"deltafine {deltafine.__version__}"
    assert deltafine.__version__ == importlib.metadata.version("deltafine")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip model with delta layers, saved."""
    from deltafine import find_activations, insert_deltas

    model = small_model()
    path = tmp_path_factory.mktemp("saved") / "refined.keras"
    insert_deltas(model, find_activations(model)).save(path)
    return path


def test_a_saved_model_loads_where_deltafine_is_imported_before_keras(saved: Path) -> None:
    done = in_a_process(
        f"import deltafine, keras\nmodel = keras.models.load_model({str(saved)!r})\n"
        "print(sum(type(layer) is deltafine.DeltaActivation for layer in model.layers), keras.__spec__.loader)"
    )
    assert done.stdout.startswith("3 <_frozen_importlib_external.SourceFileLoader"), done.stderr


@pytest.mark.slow
def test_a_saved_model_loads_once_deltafine_is_imported_and_not_before(saved: Path) -> None:
    done = in_a_process(
        "import keras\n"
        "try:\n"
        f"    keras.models.load_model({str(saved)!r})\n"
        "except TypeError as error:\n"
        "    print(error)\n"
        f"import deltafine\nprint('loaded', keras.models.load_model({str(saved)!r}).name)"
    )
    assert done.stdout.strip().endswith("loaded small"), done.stderr
    page = (Path(__file__).parents[1] / "docs" / "refined-model.md").read_text("utf-8")
    for words in ("could not be deserialized properly.", "Could not locate class 'FoldTime'."):
        assert words in done.stdout
        assert words in page

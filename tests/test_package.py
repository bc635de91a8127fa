"""What `import deltafine` gives, and what it leaves alone until it is used."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import deltafine
from tests.small_runs import small_model

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


@pytest.mark.parametrize("command", [(), ("refine",), ("demo",), ("report",)])
def test_help_does_not_load_tensorflow(command: tuple[str, ...]) -> None:
    done = in_a_process(
        "import atexit, sys\n"
        "atexit.register(lambda: print('heavy:', sorted({'tensorflow', 'keras', 'av'} & sys.modules.keys())))\n"
        f"sys.argv = ['deltafine', *{command!r}, '--help']\n"
        "from deltafine.cli import main\n"
        "main()"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: deltafine" in done.stdout
    assert done.stdout.strip().endswith("heavy: []")


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

"""Whether numba can be used: installed alone it need not work, as with a NumPy that is too new for it."""

from __future__ import annotations

import functools

MEND_NUMBA = "pip install --force-reinstall numba"


@functools.cache
def why_no_numba() -> str:
    """Why numba cannot be used, to stand in brackets; "" where it can. It is imported to find out."""
    try:
        import numba  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "numba":
            return "it is not installed"
        return _reason(error)
    except Exception as error:  # a library that does not fit raises whatever it comes upon
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__

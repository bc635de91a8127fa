"""Completion in a shell: what is offered, and whether there is a shell to complete in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from deltafine.errors import DeltafineError

OPTIONS = ("--install-completion", "--show-completion")
_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def offering(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """What an option completes to: those of the choices that begin with what was typed."""

    def offered(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return offered


def completing() -> bool:
    """Whether a shell asks what could follow."""
    return "_DELTAFINE_COMPLETE" in os.environ


def refuse_unknown_shell(arguments: Iterable[str]) -> None:
    """Of the options that install or show completion.

    Raises:
        DeltafineError: it is not known which shell called, or it is one without completion.
    """
    if not (given := [option for option in OPTIONS if option in arguments]):
        return
    import shellingham  # which typer requires

    try:
        shell = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        shell = ""
    if shell not in _SHELLS:
        found = f"there is no completion for {shell}" if shell else "the shell cannot be told"
        raise DeltafineError(f"{given[0]}: {found}: call it from bash, zsh, fish or PowerShell.")

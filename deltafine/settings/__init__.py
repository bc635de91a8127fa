"""Every setting of a refinement, declared once, and the ways to give settings."""

from __future__ import annotations

from deltafine.settings.commands import TAKES
from deltafine.settings.declaring import Declared, choices_shown, is_ambiguous, share_of
from deltafine.settings.recipes import TRUSTING, GivenSettings, assigned, checked, given_names, resolve
from deltafine.settings.refine_settings import (
    ADDED_LATER,
    CHANGEABLE,
    DECLARED,
    RENAMED,
    TODAYS_DEFAULT,
    RefineSettings,
    digest,
)

__all__ = [
    "ADDED_LATER",
    "CHANGEABLE",
    "DECLARED",
    "RENAMED",
    "TAKES",
    "TODAYS_DEFAULT",
    "TRUSTING",
    "Declared",
    "GivenSettings",
    "RefineSettings",
    "assigned",
    "checked",
    "choices_shown",
    "digest",
    "given_names",
    "is_ambiguous",
    "resolve",
    "share_of",
]

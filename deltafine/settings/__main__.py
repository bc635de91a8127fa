"""Print the page of the documentation that lists all settings."""

from __future__ import annotations

import sys

from deltafine.settings.settings_page import page

sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
sys.stdout.write(page())

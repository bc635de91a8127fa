"""Numbers and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.report import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.126, "12.6%"),
        (0, "0.0%"),
        (1, "100.0%"),
        (0.00042, "0.042%"),
        (1e-9, "0.00000010%"),
        (float("nan"), "not finite"),
    ],
)
def test_small_shares_keep_their_digits(value: float, shown: str) -> None:
    assert text.share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.004, "-0.4"), (0.005, "+0.5"), (0, "+0.0"), (-0.0001, "+0.0"), (float("inf"), "not finite")],
)
def test_points_are_always_signed_and_zero_is_not_negative(value: float, shown: str) -> None:
    assert text.points(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999_600, "1.00 M"),
        (456_000, "456 k"),
        (1_234_567, "1.23 M"),
        (4.1e9, "4.10 G"),
        (0.5, "0.500"),
    ],
)
def test_counts_have_three_digits_and_a_prefix(value: float, shown: str) -> None:
    assert text.scaled(value) == shown


def test_bytes_have_their_unit_after_the_prefix() -> None:
    assert text.scaled(387_000, "B") == "387 kB"
    assert text.scaled(12, "B") == "12 B"


def test_an_absent_figure_is_never_zero() -> None:
    assert text.shown(None, "share") == "-"
    assert text.shown(0.0, "share") == "0.0%"


def test_durations_are_in_words() -> None:
    assert [text.duration(s) for s in (42, 200, 7500)] == ["42 s", "3 min 20 s", "2 h 5 min"]


def test_escape_sequences_and_overrides_are_shown_not_obeyed() -> None:
    assert text.clean("a\x1b[31mb\nc\u202ed") == "a\\x1b[31mb\\nc\\u202ed"


@settings(deadline=None)
@given(st.text())
def test_no_cleaned_text_holds_a_control_character(value: str) -> None:
    cleaned = text.clean(value)
    assert "\x1b" not in cleaned
    assert cleaned.isprintable()


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_names_are_left_alone(value: str) -> None:
    assert text.clean(value) == value

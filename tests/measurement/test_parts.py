"""Several outputs in one vector: each is taken by its own spread, whatever its size and its numbers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltafine.document.figures import OutputFigures
from deltafine.errors import DeltafineError
from deltafine.measurement.by_output import ByOutput
from deltafine.measurement.judging import Judge
from deltafine.measurement.label_error import LabelError
from deltafine.measurement.metric import Answered, Shown, Subject
from deltafine.measurement.original_error import OriginalError
from deltafine.measurement.output import Output
from deltafine.measurement.parts import OutputPart, by_name, shares, split, spreads, weighted
from deltafine.measurement.relative_error import RelativeError

MAP, SIZES, TURN = OutputPart("map", (3, 2, 1)), OutputPart("sizes", (3, 2, 2)), OutputPart("turn", (1,))
PARTS = (MAP, SIZES, TURN)


def laid_out(*outputs: np.ndarray) -> np.ndarray:
    return np.concatenate([one.reshape(len(one), -1) for one in outputs], axis=-1)


def answers(seed: int, frames: int = 5) -> list[np.ndarray]:
    """Numbers of three scales, which vary."""
    generator = np.random.default_rng(seed)
    scales = (0.01, 1000.0, 1.0)
    return [scale * generator.normal(3, 1, (frames, *part.shape)) for part, scale in zip(PARTS, scales, strict=True)]


def error_by_hand(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Of one output: over its numbers, positions counting as frames do."""
    ours, aim = (one.reshape(-1, one.shape[-1]) for one in (predictions, targets))
    return float(np.sqrt((((ours - aim) ** 2).mean(0) / aim.var(0)).mean()))


def test_what_is_laid_out_is_taken_apart_again_by_name() -> None:
    given_answers = answers(0)
    apart = by_name(laid_out(*given_answers), PARTS)
    assert list(apart) == ["map", "sizes", "turn"]
    for found, expected in zip(apart.values(), given_answers, strict=True):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_the_error_is_the_mean_of_the_outputs_squared_errors_by_weight(
    seed: int, piece: int, weights: list[float]
) -> None:
    ours, aims = answers(seed), answers(seed + 1)
    parts = [OutputPart(part.name, part.shape, weight) for part, weight in zip(PARTS, weights, strict=True)]
    one, other = RelativeError(parts), RelativeError(parts)
    for begin in range(0, 5, piece):  # in pieces, and shared out to two who count
        of = slice(begin, begin + piece)
        (one if begin % 2 else other).update(laid_out(*ours)[of], laid_out(*aims)[of], begin)
    one.add(other.record())
    errors = [error_by_hand(mine, aim) for mine, aim in zip(ours, aims, strict=True)]
    assert one.by_part() == pytest.approx(errors, rel=1e-6)
    assert one.result() == pytest.approx(np.sqrt(np.average(np.square(errors), weights=weights)), rel=1e-6)


def test_a_large_output_does_not_hide_that_a_small_one_is_wrong() -> None:
    aims = answers(0)
    ours = [one.copy() for one in aims]
    ours[0][...] = aims[0].mean()  # the map, of hundredths, beside sizes of thousands: held at its mean
    error = RelativeError(PARTS)
    error.update(laid_out(*ours), laid_out(*aims))
    assert error.by_part() == pytest.approx([1, 0, 0])
    assert error.result() == pytest.approx(np.sqrt(1 / 3))


def test_an_output_that_hardly_varies_is_no_scale_and_one_that_never_does_is_none() -> None:
    aims = answers(0)
    aims[2][...] = 4.0
    ours = [one.copy() for one in aims]
    ours[2] += 0.04
    error = RelativeError(PARTS)
    error.update(laid_out(*ours), laid_out(*aims))
    assert error.by_part() == pytest.approx([0, 0, 1])  # a hundredth of its size
    still = RelativeError(PARTS)
    still.update(np.ones((4, 19)), np.ones((4, 19)))
    with pytest.raises(DeltafineError, match="the same on every frame"):
        still.result()


def test_held_answers_are_judged_by_the_same_error() -> None:
    aims = laid_out(*answers(0))
    held = np.repeat(aims[:1], len(aims), axis=0)
    judge, error = Judge(Output("numbers", parts=PARTS), False, 1), RelativeError(PARTS)
    judge.expect(aims, 0)
    judge.add_scores(judge.scores(held, aims).sum(axis=0, keepdims=True), 0)
    error.update(held, aims)
    assert judge.results() == pytest.approx([error.result()])


def test_spreads_and_shares_are_those_of_each_output() -> None:
    given_answers = answers(0, frames=50)
    found = split(spreads(laid_out(*given_answers), PARTS), PARTS)
    for spread, values in zip(found, given_answers, strict=True):
        expected = values.reshape(-1, values.shape[-1]).std(0)
        np.testing.assert_allclose(spread, np.broadcast_to(expected, spread.shape))
    parts = weighted(PARTS, ["turn=2", "map=0"])
    assert [one.sum() for one in split(shares(parts), parts)] == pytest.approx([0, 1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("parts", "text", "reason"),
    [
        (PARTS, "map", "'map' cannot be read: give NAME=WEIGHT"),
        (PARTS, "map=-1", "cannot be read"),
        (PARTS, "map=nan", "cannot be read"),
        (PARTS, "boxes=1", "no output 'boxes' .*: its outputs are 'map', 'sizes', 'turn'"),
        ((), "map=1", "single output"),
        ((MAP,), "map=0", "All output weights are 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(parts: tuple[OutputPart, ...], text: str, reason: str) -> None:
    with pytest.raises(DeltafineError, match=reason):
        weighted(parts, [text])


def test_classes_among_the_outputs_have_a_fidelity_as_well() -> None:
    parts = (OutputPart("who", (2,)), OutputPart("angle", (1,)))
    original = np.array([[0.9, 0.1, 5.0], [0.2, 0.8, 6.0], [0.6, 0.4, 7.0], [0.3, 0.7, 8.0]])
    ours = np.array([[0.8, 0.2, 5.0], [0.6, 0.4, 6.0], [0.7, 0.3, 7.0], [0.4, 0.6, 8.0]])
    subject = Subject(None, Output("numbers", parts=parts))  # type: ignore[arg-type]
    metrics = [OriginalError(), LabelError(), ByOutput()]
    for metric in metrics:
        metric.begin(subject)
        metric.update(
            Shown(None, Answered(ours[None], np.full((1, 4), -1), np.array([0]), original=original[None]))  # type: ignore[arg-type]
        )

    class Both:
        def metric(self, kind: type) -> object:
            return next(metric for metric in metrics if isinstance(metric, kind))

    who, angle = metrics[2].result(Both()).figures["outputs"]  # type: ignore[arg-type,misc]
    assert isinstance(who, OutputFigures)
    assert (who.fidelity, angle.fidelity) == (0.75, None)
    assert who.relative_error == pytest.approx(error_by_hand(ours[:, :2], original[:, :2]))
    assert angle.relative_error == 0

"""The plot of quality against MACs: the models, and simpler ways to save."""

from __future__ import annotations

from deltafine.document.report import MODEL_NAMES, Controls, Report
from deltafine.report.control import judged_by, of_epoch
from deltafine.report.holding import held_curve
from deltafine.report.plots import Level, Plot, Series, draw, front_is_comparable, front_note
from deltafine.report.quantities import columns, figures_of, subject
from deltafine.report.text import judged, share


def controls_plot(report: Report) -> Plot | None:
    """All models and the simpler ways to save on one logarithmic scale of cost; None where these were not measured.

    Checkpoints are among them if they were measured on the same streams.
    """
    controls = report.controls
    if controls is None or not (controls.held or controls.refined_held):
        return None
    what, last = controls.judged_by, subject(report)
    series = [_held(report, what), _gated(controls)]
    if with_checkpoints(report):
        front = [(point.mac_density, of_epoch(point.accuracy, what)) for point in report.front]
        notes = [front_note(point, what) for point in report.front]
        series.append(Series("checkpoints", front, "checkpoint", line=False, notes=notes))
    series = [one for one in (*series, *(_model(report, controls, name) for name in columns(report))) if one.points]
    frozen = _frozen(report, last)
    levels = [] if frozen is None else [Level("never updating", frozen, "control")]
    title = f"{what.capitalize()} against MACs on streams{', lower is better' if what == 'error' else ''}"
    return Plot(
        "controls",
        title,
        draw(
            f"{title}: {', '.join(one.label for one in series)}",
            series,
            "MACs per frame, of those of the original on every frame",
            levels,
            _percent,
            lambda y: judged(y, what),
            x_log=True,
            y_label=f"{what} (lower is better)" if what == "error" else what,
        ),
        [*((one.colour, one.label) for one in series), *((level.colour, level.label) for level in levels)],
        f"The further left and {'down' if what == 'error' else 'up'}, the better: less work, "
        f"{'smaller error' if what == 'error' else f'higher {what}'}.",
    )


def curve_terms(report: Report) -> list[tuple[str, str]]:
    """What stands in the plot, for those who have not heard of it."""
    noun = "frame" if report.model.window is None else "clip"
    found = [("original", f"the network as it was given, on every {noun}")]
    controls, models = report.controls, report.models
    if controls is not None and controls.held:
        found.append(("original held", f"it runs on every k-th {noun} only, and its answer stands for those between"))
    if controls is not None and controls.motion_gate:
        found.append(("behind a motion gate", "it runs only where the picture has changed enough"))
    if "calibrated" in models:
        found.append(("calibrated", "with delta layers, which leave out what hardly changes; not trained"))
    if "refined" in models:
        found.append(("refined", "the same after training"))
    found.append(("never updating", f"the answer to the first {noun}, held for ever: no better is of no use"))
    return found


def with_checkpoints(report: Report) -> bool:
    """Whether checkpoints belong into the plot: measured on the same streams, and judged by the same."""
    same = report.controls is not None and report.controls.judged_by == judged_by(report)
    return same and front_is_comparable(report)


def _held(report: Report, what: str) -> Series:
    curve = held_curve(report)
    notes = [f"original held for {every}: {what} {judged(quality, what)}" for every, quality in curve]
    return Series("original held", [(1 / every, quality) for every, quality in curve], "held", notes=notes)


def _gated(controls: Controls) -> Series:
    notes = [
        f"original where pixels differ by more than {point.threshold:g}: runs on {share(point.share)}, "
        f"{controls.judged_by} {judged(point.quality, controls.judged_by)}"
        for point in controls.motion_gate
    ]
    points = [(point.share, point.quality) for point in controls.motion_gate]
    return Series("original behind a motion gate", points, "gate", notes=notes)


def _model(report: Report, controls: Controls, name: str) -> Series:
    """A model; the subject with its held answers."""
    colour = name if name in MODEL_NAMES else MODEL_NAMES[-1]
    figures = figures_of(report, name, "streams")
    cost, reached = figures.operations.mac_density, controls.quality_of(figures)
    if name == "original" and controls.held:
        cost, reached = 1.0, held_curve(report)[0][1]
    if reached is None:
        return Series(name, [], colour)
    held = controls.refined_held if name == subject(report) else []
    points = [(cost, reached), *((point.mac_density, point.quality) for point in held)]
    names = [name, *(f"{name} held for {point.every}" for point in held)]
    notes = [
        f"{one}: {controls.judged_by} {judged(quality, controls.judged_by)}, MACs {share(macs)}"
        for one, (macs, quality) in zip(names, points, strict=True)
    ]
    return Series(f"{name}, and held" if held else name, points, colour, notes=notes, big=frozenset({0}), name=name)


def _frozen(report: Report, model: str) -> float | None:
    """A network that never updates, by the measure of the controls."""
    figures = figures_of(report, model, "streams")
    if report.controls is not None and report.controls.judged_by == "score":
        return None if figures.frozen_score is None else figures.frozen_score.value
    if report.controls is not None and report.controls.judged_by == "error":
        return figures.frozen_error
    if report.controls is not None and report.controls.judged_by == "fidelity":
        return figures.frozen_fidelity
    return None if figures.frozen_accuracy is None else figures.frozen_accuracy.value


def _percent(value: float) -> str:
    """A round share, shortly."""
    return f"{100 * value:g}%"

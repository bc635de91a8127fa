"""What a report says first: the headline, the cautions, and the tables that every way to show it shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from deltafine.document.figures import Unit
from deltafine.document.report import DeltaFigures, Estimate, Figures, LayerFigures, Report, SiteInfo
from deltafine.report.control import TOLERANCE, control_of, quality_of, said_of
from deltafine.report.equal_time import equal_time
from deltafine.report.health import health_cautions, listed
from deltafine.report.holding import equal_macs
from deltafine.report.quantities import Feeding, Quantity, columns, figures_of, quantities_of, subject
from deltafine.report.savings import sentence as savings_sentence
from deltafine.report.short_streams import why_untold
from deltafine.report.text import ABSENT, clean, counted, interval, points, share, shown, signed, significant, times
from deltafine.report.whom import cautions_of_parts

_ADVICE = "these videos cannot show whether a model still follows them; measure on videos in which the answer changes."

Named = TypeVar("Named", LayerFigures, DeltaFigures)


@dataclass(frozen=True)
class Headline:
    """The subject model on continuous streams, in words.

    Attributes:
        model: the subject.
        saving: what is saved; or that this cannot be told, where a network that never updates is as good.
        accuracy: how good the model is; or why the saving cannot be told.
        control: how good a network is that never updates; empty where ``accuracy`` says it.
        fidelity: how near the model is to the original.
        told: whether a saving is claimed.
        doubtful: it is not, or it came from not updating.
        factors: what is saved against more than a dense inference; empty where it is not known.
        held: how good the original is at the same MACs, if it runs on every k-th frame; empty where it is not known.
        in_time: the same in the same time; empty where times were not measured.
    """

    model: str
    saving: str
    accuracy: str
    control: str
    fidelity: str
    told: bool
    doubtful: bool
    factors: str = ""
    held: str = ""
    in_time: str = ""

    @property
    def beside(self) -> tuple[str, ...]:
        """What stands below it."""
        sentences = (self.factors, self.control, self.fidelity, self.held, self.in_time)
        return tuple(one for one in sentences if one and one not in self.sentence)

    @property
    def sentence(self) -> str:
        return f"{self.saving}{',' if self.told else ':'} {self.accuracy}"


def headline(report: Report) -> Headline:
    """The first thing to read: saving and accuracy of the subject model on streams, control and fidelity beside.

    Where the original does not work, the frozen control is as good as the model, or the model is the original, there
    is no saving to speak of, and none is named.
    """
    model = subject(report)
    figures = figures_of(report, model, "streams")
    likeness = _likeness(figures) if model != "original" else ""
    reference = report.reference
    if reference is not None and reference.broken:
        why = f"The {reference.model} model does not work on these videos"
        return Headline(model, why, quality_of(reference), control="", fidelity=likeness, told=False, doubtful=True)
    control = control_of(report)
    if control is not None and control.says_nothing:
        return Headline(model, *said_of(control, model), "", likeness, told=False, doubtful=True)
    if any(point.chosen and point.divergence == 0 for point in report.front):
        why = report.activity.reason if report.activity is not None else "every change counts on these videos"
        said = "Nothing within the budget saves anything"
        return Headline(model, said, why, control="", fidelity=likeness, told=False, doubtful=True)
    if model != "original" and (why := why_untold(report)):
        untold = "These videos cannot tell what is saved"
        return Headline(model, untold, why, control="", fidelity=likeness, told=False, doubtful=True)
    held, frozen, score = figures.frozen_accuracy, figures.frozen_error, figures.frozen_score
    at_equal_macs, in_equal_time = equal_macs(report), equal_time(report)
    return Headline(
        model=model,
        saving=saving(figures.operations.mac_density),
        accuracy=_accuracy(report, model),
        control=(
            f"a score of {significant(score.value)} for a network that never updates"
            if score is not None
            else f"accuracy {share(held.value)} for a network that never updates"
            if held
            else f"an error of {share(frozen)} for a network that never updates"
            if frozen is not None
            else ""
        ),
        fidelity=likeness,
        factors=savings_sentence(report),
        held="" if at_equal_macs is None else at_equal_macs.sentence,
        in_time="" if in_equal_time is None else in_equal_time.sentence,
        told=True,
        doubtful=control is not None and control.hardly_updates,
    )


def saving(mac_density: float) -> str:
    """A MAC density as a ratio that people compare: 8.3x fewer MACs."""
    if mac_density == 0:
        return "no MACs after the first frame"
    return f"{times(1 / mac_density)} fewer MACs" if mac_density < 1 else "no fewer MACs"


def _accuracy(report: Report, model: str) -> str:
    figures = figures_of(report, model, "streams")
    if figures.score is not None:
        by = f" by {clean(report.score.name)}" if report.score is not None else ""
        if figures.score_change is None:
            return f"score {significant(figures.score.value)} {interval(figures.score, 'number')}{by}"
        low, high = signed(figures.score_change.low), signed(figures.score_change.high)
        against = f"{signed(figures.score_change.value)} [{low}, {high}] against the original"
        return f"score {significant(figures.score.value)}{by}, {against}"
    accuracy = figures.frame_accuracy or figures.window_accuracy or figures.clip_accuracy
    if model != "original" and figures.accuracy_change is not None:
        change = figures.accuracy_change
        itself = f"{share(accuracy.value)}, " if accuracy is not None else ""
        told = f"accuracy {itself}{points(change.value)} points {_interval(figures, change, 'points')}".rstrip()
        return f"{told} against the original"
    if accuracy is not None:
        return f"accuracy {share(accuracy.value)} {_interval(figures, accuracy, 'share')}".rstrip()
    if figures.label_error is not None:
        original = report.models["original"].streams.label_error if "original" in report.models else None
        beside = "" if model == "original" or original is None else f", {share(original)} for the original"
        return f"error {share(figures.label_error)} of the labels' spread{_of_outputs(figures)}{beside}"
    return (_likeness(figures) if model != "original" else "") or "accuracy not measured"


def _of_outputs(figures: Figures) -> str:
    """Of several outputs with labels, the error of each."""
    found = [(one.name, one.label_error) for one in figures.outputs if one.label_error is not None]
    return f" ({', '.join(f'{clean(name)} {share(error)}' for name, error in found)})" if found else ""


def _interval(figures: Figures, estimate: Estimate, unit: Unit) -> str:
    """Empty where all videos are of one recording, of which nothing else can be drawn."""
    return "" if figures.recordings == 1 else interval(estimate, unit)


def _likeness(figures: Figures) -> str:
    """How near the predictions are to the original's."""
    if figures.relative_error is not None:
        return f"error {share(figures.relative_error)} of the spread of the original's predictions"
    if figures.fidelity is not None:
        return f"{share(figures.fidelity)} of frames predicted as by the original"
    return ""


def beside_frames(report: Report) -> str:
    """What the model takes beside its frames, with a comma behind it; empty for most."""
    given = report.model.further_inputs
    return f"beside its frames it takes {listed(given)}, " if given else ""


def cautions(report: Report) -> list[str]:
    """Everything a reader must know before believing the headline: the run's warnings, then what the figures show."""
    broken = report.reference.broken if report.reference is not None else ""
    found = [broken] if broken else []
    found += [*report.warnings, *([] if broken else _control_cautions(report)), *_training_cautions(report)]
    if report.model.window is not None:
        found.append(
            f"The model takes clips of {report.model.window} frames: what is said of a frame is said of such a clip, "
            "and accuracy is that of clips."
        )
    found += cautions_of_parts(report)
    if report.model.coverage < 0.995:
        uncovered = listed(layer.name for layer in report.model.uncovered)
        found.append(
            f"{share(1 - report.model.coverage)} of the model's MACs are in layers that are not measured"
            + (f": {uncovered}." if uncovered else ".")
        )
    unknown = [layer.name for layer in report.model.uncovered if layer.dense_macs is None]
    if unknown:
        found.append(f"Nobody knows the MACs of {listed(unknown)}: no figure here has anything of them.")
    if whole := report.model.counted_whole:
        found.append(f"All MACs of {listed(whole)} count wherever their input changes: fewer may be needed.")
    problems = len(report.data.problems) + len(report.stream_data.problems if report.stream_data else ())
    if problems:
        were = "was" if problems == 1 else "were"
        found.append(f"{counted(problems, 'video')} {were} left out or had problems; they are listed below.")
    found += health_cautions(report)
    return list(dict.fromkeys(found))


def _control_cautions(report: Report) -> list[str]:
    found = []
    control, name = control_of(report), subject(report)
    if "original" in report.models:
        original = report.models["original"].streams
        accuracy, held = original.frame_accuracy or original.window_accuracy, original.frozen_accuracy
        if control is not None and control.what == "score":
            if control.untold:
                goal = control.reached if control.goal is None else control.goal
                found.append(
                    f"The original model has a score of {control.said(goal)}, hardly more than a network that never "
                    f"updates ({control.said(control.frozen)}): {_ADVICE}"
                )
            accuracy = held = None
        if accuracy and held and held.value >= min(accuracy.value - TOLERANCE, accuracy.low):
            found.append(
                f"The original model scores {share(accuracy.value)}, hardly more than a network that never "
                f"updates ({share(held.value)}): {_ADVICE}"
            )
        if (
            not accuracy
            and report.score is None
            and original.frozen_fidelity is not None
            and original.frozen_fidelity > 1 - TOLERANCE
        ):
            found.append(
                f"The original model predicts on {share(original.frozen_fidelity)} of the frames what it predicts on "
                f"the first: {_ADVICE}"
            )
    elif control is not None and control.as_good:
        found.append(
            f"The {name} model's {control.what} is {control.said(control.reached)}, that of a network that never "
            f"updates {control.said(control.frozen)}: {_ADVICE}"
        )
    if control is not None and control.goal is not None and control.hardly_updates:
        found.append(
            f"The {name} model's {control.what} on streams ({control.said(control.reached)}) is nearer to that of a "
            f"network that never updates ({control.said(control.frozen)}) than to the original's "
            f"({control.said(control.goal)}): it hardly updates."
        )
    return found


def frozen(report: Report) -> str:
    """How many weights a training left as they are; empty if none."""
    held = report.model.frozen
    return f"{held.parameters:,} of {held.of:,} weights frozen ({listed(held.layers)})" if held else ""


def _training_cautions(report: Report) -> list[str]:
    if not {"calibrated", "refined"} <= report.models.keys():
        return []
    found = []
    if frozen(report) and not report.settings.get("freeze"):
        found.append(
            f"Only a part of the model was trained, since it came with {frozen(report)}; --unfreeze PATTERN trains "
            "them too."
        )
    calibrated, refined = report.models["calibrated"].streams, report.models["refined"].streams
    cost_before, cost_after = calibrated.operations.mac_density, refined.operations.mac_density
    quality_before, quality_after = _quality(calibrated), _quality(refined)
    worse = quality_after is not None and quality_before is not None and quality_after <= quality_before
    if cost_after >= cost_before and worse:
        found.append(
            "Training did not pay: the refined model needs no fewer MACs than the calibrated one and is no more "
            "accurate."
        )
    return found


def _quality(figures: Figures) -> float | None:
    """The score, accuracy, fidelity, or the negative of an error: higher is better."""
    if figures.score is not None:
        return figures.score.value
    accuracy = figures.frame_accuracy or figures.window_accuracy
    if accuracy is not None:
        return accuracy.value
    error = figures.label_error if figures.label_error is not None else figures.relative_error
    return -error if error is not None else figures.fidelity


@dataclass(frozen=True)
class Row:
    """One figure of every model: strings for people, numbers for sorting."""

    quantity: Quantity
    cells: tuple[str, ...]
    intervals: tuple[str, ...]
    values: tuple[float | None, ...]

    @property
    def has_intervals(self) -> bool:
        return any(text != ABSENT for text in self.intervals)


def rows(report: Report, feeding: Feeding, brief: bool = False) -> list[Row]:
    """The figures that were measured of any model, one row each, models in the order of `columns`."""
    found = []
    for quantity in quantities_of(*(figures_of(report, model, feeding) for model in columns(report))):
        if brief and not quantity.brief:
            continue
        measured = [figures_of(report, model, feeding) for model in columns(report)]
        read = [quantity.read(of_model) for of_model in measured]
        if all(value is None for value in read):
            continue
        numbers = tuple(value.value if isinstance(value, Estimate) else value for value in read)
        if quantity.rare and not any(numbers):
            continue
        found.append(
            Row(
                quantity,
                tuple(shown(number, quantity.unit) for number in numbers),
                tuple(
                    _interval(of_model, value, quantity.unit) or ABSENT if isinstance(value, Estimate) else ABSENT
                    for of_model, value in zip(measured, read, strict=True)
                ),
                numbers,
            )
        )
    return found


def layers_by_name(report: Report, feeding: Feeding) -> list[tuple[str, dict[str, LayerFigures]]]:
    """Every layer with what each model spends in it, in the order of the first model that has it.

    A layer that is called twice has two entries of one name; the n-th of one model stands beside the n-th of another.
    """
    return pairs({model: figures_of(report, model, feeding).layers for model in columns(report)})


def deltas_by_name(report: Report, feeding: Feeding) -> list[tuple[str, dict[str, DeltaFigures]]]:
    """Every delta layer with what each model does in it."""
    return pairs({model: figures_of(report, model, feeding).deltas for model in columns(report)})


def delta_rules(report: Report, model: str) -> list[str]:
    """How the delta layers of a model decide, each way once: "send-on-delta per channel"."""
    return sorted({f"{delta.rule} per {delta.granularity}" for delta in figures_of(report, model, "streams").deltas})


def pairs(by_model: dict[str, list[Named]]) -> list[tuple[str, dict[str, Named]]]:
    found: dict[tuple[str, int], dict[str, Named]] = {}
    for model, entries in by_model.items():
        seen: Counter[str] = Counter()
        for entry in entries:
            found.setdefault((entry.name, seen[entry.name]), {})[model] = entry
            seen[entry.name] += 1
    return [(name, entries) for (name, _), entries in found.items()]


def site_state(site: SiteInfo) -> str:
    """Whether an activation got a delta layer, and why not."""
    return "delta layer" if site.selected else site.reason or "not chosen"

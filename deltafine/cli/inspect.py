"""`deltafine inspect`: shows the plan of a refinement."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltafine.cli.given_paths import refuse_missing_model
from deltafine.cli.options import takes_settings

if TYPE_CHECKING:
    from rich.console import Console

    from deltafine.model.preview import Preview, SitePreview

_WIDE = 110
_NAMES_SHOWN = 4
_WORTH_SAYING = 0.0005
"""A share that is not 0.0%."""


@takes_settings("inspect")
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file (.keras, .h5 or .onnx).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    **settings: Any,
) -> None:
    """Show where delta layers would go, what they would feed, and why others are skipped."""
    from rich.console import Console

    from deltafine.cli.console import load_tensorflow
    from deltafine.jobs.inspect import inspect_model

    refuse_missing_model(model)
    load_tensorflow()
    plan = inspect_model(model, **settings)
    if as_json:
        json.dump(plan, sys.stdout, indent=1)
        print()
    else:
        show_plan(plan, Console(highlight=False))


def show_plan(plan: Preview, console: Console) -> None:
    """Print a plan that ``deltafine.model.preview`` made."""
    from rich.text import Text

    from deltafine.cli.console import printable

    def line(text: str, style: str = "") -> None:
        console.print(Text(printable(text), style))

    model, totals = plan["model"], plan["totals"]
    line(f"{model['name']}: {_shape(model['input_shape'])} in, {_shape(model['output_shape'])} out", "bold")
    unknown = model["layers_of_unknown_macs"]
    line(
        f"{model['parameters']:,} parameters, {_short(model['dense_macs'])} MACs per {model['counted_per']}"
        + (f", without those of {unknown} layer{'s' * (unknown > 1)}, which are not known" if unknown else "")
    )
    if (frozen := model["frozen"])["parameters"]:
        line(
            f"{frozen['parameters']:,} of {frozen['of']:,} weights are frozen, in {_some(frozen['layers'])} "
            "(refine --unfreeze PATTERN trains them)"
        )
    console.print()
    _print_sites([site for site in plan["sites"] if site["selected"]], console)
    line(
        f"{totals['selected']} delta layers before {totals['coverage']:.1%} of the {'known ' * (unknown > 0)}MACs, "
        f"thresholds: {totals['thresholds']:,}, state with all sums: {_short(totals['state_bytes'])}B"
    )
    comparisons, reached = totals["comparisons"], totals["coverage"] * model["dense_macs"]
    line(
        f"They compare {_short(comparisons)} values per {model['counted_per']}; each of these can save "
        f"{reached / comparisons:.3g} MACs on average"
    )
    skipped = defaultdict(list)
    for site in plan["sites"]:
        if not site["selected"]:
            skipped[site["reason"]].append(site["name"])
    for reason, names in skipped.items():
        line(f"\nSkipped, {reason}", "bold")
        line(f"  {_some(names)}")
    apart = 1 - totals["coverage"]
    if apart >= _WORTH_SAYING:
        advice = " (add: --at default)" if plan["addable"] else ""
        line(f"\nNot behind a delta layer: {apart:.1%} of the {'known ' * (unknown > 0)}MACs{advice}", "bold")
        names = [entry["layer"] for entry in plan["not_behind"]]
        line(f"  {_some(names) if names else 'parts of layers, such as those that only see zeros around a picture'}")
    for title, entries in (
        ("Layers with MACs that are not measured", plan["not_counted"]),
        ("Layers that count with all their MACs wherever their input changes", plan["counted_whole"]),
    ):
        if entries:
            line(f"\n{title}", "bold")
        for entry in entries:
            macs = "unknown" if entry["dense_macs"] is None else _short(entry["dense_macs"])
            line(f"  {entry['layer']} ({entry['type']}): {entry['reason']}; {macs} MACs")


def _print_sites(sites: list[SitePreview], console: Console) -> None:
    from rich.text import Text

    from deltafine.cli.console import printable
    from deltafine.report.folding import add_figures, add_names, add_words, print_table, table

    wide = console.width >= _WIDE
    made = table(console)
    add_names(made, "delta layer after")
    add_words(made, "kind", "shape")
    (add_names if wide else add_figures)(made, "feeds")
    add_figures(made, "fan-out", "MACs", "thresholds", "state")
    for site in sites:
        feeds = ", ".join(site["consumers"]) if wide else str(len(site["consumers"]))
        cells = [site["name"], site["kind"], _shape(site["shape"]), feeds, f"{site['fan_out']:.4g}"]
        cells += [f"{site['mac_share']:.1%}", f"{site['thresholds']:,}", f"{_short(site['state_bytes'])}B"]
        made.add_row(*[Text(printable(cell)) for cell in cells])
    print_table(made, console)
    console.print()


def _shape(shape: Any) -> str:
    if isinstance(shape, dict):
        return ", ".join(f"{name} {_shape(value)}" for name, value in shape.items())
    if shape and isinstance(shape[0], list):
        return ", ".join(_shape(value) for value in shape)
    sizes = shape[1:] if shape and shape[0] is None else shape
    return "x".join("?" if size is None else str(size) for size in sizes) or "1"


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {unit}".strip() if unit else f"{number:.3g}"
        number /= 1000
    return f"{number:.3g} T"


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

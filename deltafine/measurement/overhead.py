"""Overhead: what a delta inference does that a dense inference does not, and the density at which it stops paying.

For a layer with N input elements, of which E have changed, and M outputs, each frame needs in addition

- N comparisons of the input with the one that was seen last, and N subtractions, which make the changes,
- N values of the last input read, E written, and M sums of the frame before read.

Every one of these counts as one operation, as a MAC does. What a dense inference also does (reading the input,
writing the outputs, the activation function) is not overhead. A first frame only stores its N inputs.
"""

from __future__ import annotations

from deltafine.measurement.probe import Place


def steps(place: Place) -> int:
    """How often a layer runs per frame: once; or per window, of a network that takes clips."""
    return max(1, len(place.step_macs))


def comparisons(place: Place) -> int:
    """Per frame, as many as there are subtractions."""
    return place.elements * steps(place)


def moves(place: Place, changed: float) -> float:
    """Values read and written per frame, ``changed`` being the mean number of elements changed when it runs."""
    return (place.elements + changed + place.output_elements) * steps(place)


def overhead_operations(place: Place, changed: float) -> float:
    """Comparisons, subtractions and moves per frame."""
    return 2 * comparisons(place) + moves(place, changed)


def break_even_density(place: Place) -> float:
    """The delta density at which effective MACs + overhead = dense MACs; 0 if the overhead is larger whatever changes.

    Solves MACs * d + 3 N + d N + M = MACs for d.
    """
    most = place.dense_macs - overhead_operations(place, 0)
    return max(0.0, most / (place.dense_macs + place.elements * steps(place)))

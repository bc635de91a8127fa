"""What `deltafine run` says of frames: lines for people, or a JSON object per line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from deltafine.cli.console import print_note, print_text

if TYPE_CHECKING:
    from deltafine.jobs.played import Dropped, Over, Played, Said, Tally
    from deltafine.jobs.run import Playing


class FrameLines:
    """For people.

    Args:
        playing: what is played.
        quiet: leave out the lines of single frames.
    """

    def __init__(self, playing: Playing, quiet: bool) -> None:
        self._playing, self._quiet = playing, quiet
        self._several = len(playing.tallies) > 1
        self._dense = playing.runtime.plan.dense_macs()
        self._budget = playing.runtime.budget_ms or playing.runtime.budget_macs

    def begin(self) -> None:
        """Say what no kernel runs, once."""
        for note in self._playing.runtime.plan.notes():
            print_text(note)

    def frame(self, frame: Played) -> None:
        if self._quiet:
            return
        from deltafine.jobs.answers import flat

        outputs = self._playing.outputs
        said = [kind.said(values) for kind, values in zip(outputs, flat(frame.prediction), strict=True)]
        if len(said) > 1:
            said = [f"{kind.name}: {text}" for kind, text in zip(outputs, said, strict=True)]
        print_text(
            f"{self._named(frame.source)}frame {frame.number}: {', '.join(said)}{' (held)' if frame.held else ''}, "
            f"events {_share(frame.sent, frame.values)}, MACs {_share(frame.macs, self._dense)}, "
            f"{frame.milliseconds:.2f} ms"
        )

    def dropped(self, frame: Dropped) -> None:
        print_note(f"{self._named(frame.source)}frame {frame.number} is dropped: {frame.reason}.")

    def said(self, event: Said) -> None:
        print_note(f"{event.source} {event.text}.")

    def over(self, event: Over) -> None:
        if event.failure and self._several:
            print_note(event.failure)

    def summary(self) -> None:
        """What was played in all; of several sources of each of them before."""
        if self._several:
            for label, tally in self._playing.tallies.items():
                print_text(f"{label}: {self._summed(tally)}")
        prefix = "in all " if self._several else ""
        print_text(f"{prefix}{self._summed(self._playing.whole)}; engine {self._playing.runtime.engine}")

    def _named(self, source: str) -> str:
        return f"{source} " if self._several else ""

    def _kept(self, tally: Tally) -> str:
        """How a budget was kept."""
        runtime = self._playing.runtime
        if runtime.budget_ms is not None:
            mean, budget = f"{tally.network / tally.rest:.2f}", f"{runtime.budget_ms:g} ms"
        else:
            mean, budget = (
                _share(tally.needed, self._dense * tally.rest),
                f"{100 * (runtime.budget_macs or 0):g}% of dense",
            )
        return f"mean {mean} for a budget of {budget}, sensitivity {tally.sensitivities / tally.rest:.2f} in the mean"

    def _summed(self, tally: Tally) -> str:
        from deltafine.report.text import counted

        said = [counted(tally.frames, "frame")]
        if tally.times.count:
            said[0] += f": median {tally.times.percentile(50):.2f} ms, p95 {tally.times.percentile(95):.2f} ms"
        if tally.first is not None:
            said[0] += f"{',' if tally.times.count else ':'} first {tally.first:.2f} ms"
        if tally.rest:
            said.append(f"MACs after the first {_share(tally.needed, self._dense * tally.rest)} of dense")
        if tally.rest and self._budget:
            said.append(self._kept(tally))
        said += [f"{count} {name}" for name, count in (("skipped", tally.skipped), ("dropped", tally.dropped)) if count]
        if tally.reconnections:
            said.append(counted(tally.reconnections, "reconnection"))
        return "; ".join(said)


class JsonLines(FrameLines):
    """For programs: docs/runtime.md lists the keys."""

    def begin(self) -> None:
        for note in self._playing.runtime.plan.notes():
            print_note(f"{note}.")

    def frame(self, frame: Played) -> None:
        if self._quiet:
            return
        from deltafine.jobs.answers import flat

        outputs = zip(self._playing.outputs, flat(frame.prediction), strict=True)
        _write(
            {
                "source": frame.source,
                "frame": frame.number,
                "time": frame.time,
                "arrived": round(frame.arrived, 3),
                "outputs": {kind.name: kind.document(values) for kind, values in outputs},
                "held": frame.held,
                "events": {"sent": frame.sent, "of": frame.values},
                "macs": {"needed": frame.macs, "dense": self._dense},
                "sensitivity": round(frame.sensitivity, 3),
                "ms": {
                    "decode": round(frame.decoding, 3),
                    "scale": round(frame.scaling, 3),
                    "network": round(frame.milliseconds, 3),
                },
            }
        )

    def dropped(self, frame: Dropped) -> None:
        _write({"source": frame.source, "frame": frame.number, "dropped": frame.reason})

    def said(self, event: Said) -> None:
        _write({"source": event.source, "note": event.text})

    def over(self, event: Over) -> None:
        if event.failure:
            _write({"source": event.source, "failure": event.failure})

    def summary(self) -> None:
        sources = {label: self._document(tally) for label, tally in self._playing.tallies.items()}
        whole = self._document(self._playing.whole)
        _write({"summary": whole, "sources": sources, "engine": self._playing.runtime.engine})

    def _document(self, tally: Tally) -> dict[str, Any]:
        of_dense = self._dense * tally.rest
        return {
            "frames": tally.frames,
            "skipped": tally.skipped,
            "dropped": tally.dropped,
            "reconnections": tally.reconnections,
            "ms": {
                "p50": tally.times.percentile(50) if tally.times.count else None,
                "p95": tally.times.percentile(95) if tally.times.count else None,
                "mean": round(tally.network / tally.rest, 3) if tally.rest else None,
                "first": None if tally.first is None else round(tally.first, 3),
            },
            "mac_density": tally.needed / of_dense if of_dense else None,
            "sensitivity": tally.sensitivities / tally.rest if tally.rest else None,
        }


def _write(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, allow_nan=False))


def _share(count: int, whole: int) -> str:
    return f"{count / whole:.1%}" if whole else "none"

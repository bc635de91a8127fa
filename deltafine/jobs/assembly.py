"""The report document of a refinement or of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltafine.settings import digest

if TYPE_CHECKING:
    from deltafine.document.report import Measurement, ModelInfo, Report
    from deltafine.settings import GivenSettings
    from deltafine.video import Dataset


def assemble(
    *,
    settings: GivenSettings,
    settings_hash: str | None = None,
    model: ModelInfo,
    data: Dataset,
    streams: Dataset,
    models: Mapping[str, Measurement],
    warnings: Sequence[str],
    seconds: float,
    **more: Any,
) -> Report:
    """Put what was found into a report, with the versions, the machine and what the figures warn of.

    Args:
        settings: all of them; ``model`` and ``data`` give the title.
        settings_hash: their digest; made here if not given.
        model: that was refined or measured.
        data: its videos.
        streams: the continuous videos; the same as ``data`` if there are no others.
        models: the measurements by the name of the model.
        warnings: what the user should know.
        seconds: that all of it took.
        more: further fields of the report.
    """
    from deltafine.document.energy import HOROWITZ
    from deltafine.document.report import Report
    from deltafine.jobs.facts import data_info, peak_memory_bytes, versions
    from deltafine.report.summary import cautions

    report = Report(
        title=f"{Path(settings['model']).name} on {Path(settings['data']).name or settings['data']}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        peak_memory_bytes=peak_memory_bytes(),
        versions=versions(),
        settings=dict(settings),
        settings_hash=settings_hash or digest(settings),
        model=model,
        data=data_info(data),
        stream_data=None if streams is data else data_info(streams, beside=data),
        models=dict(models),
        energy_table=HOROWITZ,
        warnings=list(warnings),
        **{"sites": [], **more},
    )
    report.warnings = cautions(report)
    return report

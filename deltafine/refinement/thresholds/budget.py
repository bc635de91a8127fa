"""What a run is to come to: a density that is to be reached, or accuracy that may be lost."""

from __future__ import annotations

from dataclasses import dataclass

from deltafine.document.history import FrontPoint
from deltafine.settings import RefineSettings

TOLERANCE = 0.05
"""A density within 5% of the target has reached it."""
DEFAULT_DROP = {"classes": 0.01, "numbers": 0.05, "answers": 0.1, "score": 0.01}
"""What may be lost where no budget is given: accuracy; error against labels, in their spread; difference from the
original's numbers, in theirs; a score of the user's own, in its own unit."""
MARGIN = 0.2
"""Part of it that is not lost on the validation videos, since other recordings lose more."""


@dataclass(frozen=True)
class Budget:
    """What a run is to come to.

    Attributes:
        kind: the figure that is aimed at: ``macs``, ``sparsity`` or ``pixels``; None without a target.
        density: the density to reach (of a sparsity, 1 - sparsity).
        drop: accuracy that may be lost on the validation videos.
        allowed: accuracy that may be lost on others.
        asked_for: whether the user has given a budget.
        spend: whether all of ``drop`` is to be spent.
        steers: whether λ follows what is lost.
    """

    kind: str | None
    density: float | None
    drop: float
    spend: bool
    steers: bool
    allowed: float
    asked_for: bool

    @classmethod
    def of(cls, settings: RefineSettings, quality: str = "classes") -> Budget:
        """The budget that the settings give, else the default of a ``quality`` in ``DEFAULT_DROP``."""
        drop = settings.max_accuracy_drop
        wanted = {
            "macs": settings.target_macs,
            "sparsity": None if settings.target_sparsity is None else 1 - settings.target_sparsity,
            "pixels": settings.target_pixels,
        }
        kind, density = next(((name, value) for name, value in wanted.items() if value is not None), (None, None))
        spend = drop is not None and kind is None
        steers = kind is None and (spend or settings.penalty is None)
        allowed = DEFAULT_DROP[quality] if drop is None else drop
        most = (1 - MARGIN) * allowed
        return cls(kind, density, most, spend, steers, allowed, spend or kind is not None)

    def density_of(self, point: FrontPoint) -> float:
        """The density of a point that the target is about; the MAC density without a target."""
        if self.kind == "pixels":
            return point.pixel_density
        if self.kind == "sparsity":
            assert point.delta_sparsity is not None
            return 1 - point.delta_sparsity
        return point.mac_density

    def reached(self, point: FrontPoint) -> bool:
        """Whether a point is within the tolerance of the target."""
        return self.density is None or abs(self.density_of(point) / self.density - 1) <= TOLERANCE

"""AUC over samples as an SVG in the manner of the other pictures in docs/img."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 40, 55
COLOURS = {"Sync": "#3569c6", "Async": "#d9731a"}
FONT = "system-ui,Segoe UI,Helvetica,Arial,sans-serif"


@dataclass(frozen=True)
class Curve:
    """AUCs of one training after so many samples, both ascending in time."""

    name: str
    samples: list[int]
    auc: list[float]


def draw(curves: Sequence[Curve], oracle: float, lowest: float | None = None) -> str:
    """Returns the picture.

    Args:
        curves: named as in `COLOURS`.
        oracle: the best AUC that any model can reach, a dashed line.
        lowest: AUC at the bottom; by default just below the second point of the lowest curve, since the first ones are
            far below and would flatten the rest.
    """
    seen = [value for curve in curves for value in curve.auc[1:]] or [oracle - 0.1]
    low = lowest if lowest is not None else min(seen) - 0.002
    low, high = int(low * 100) / 100, (int(oracle * 100) + 1) / 100
    most = max(n for curve in curves for n in curve.samples)

    def x(samples: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * samples / most

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}" font-size="13">',
        "  <style>.t{fill:#1d2733;font-weight:600}.s{fill:#5b6b7f}.g{stroke:#dfe5ec}</style>",
        "  <style>.o{stroke:#2c8a4b;stroke-width:2;stroke-dasharray:6 5}</style>",
        f'  <rect width="{WIDTH}" height="{HEIGHT}" fill="#fafbfc" rx="10"/>',
        f'  <text class="t" x="{LEFT}" y="24">AUC on held-out samples</text>',
    ]
    for hundredth in range(round(low * 100), round(high * 100) + 1):
        at = y(hundredth / 100)
        parts.append(f'  <path class="g" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'  <text class="s" x="{LEFT - 10}" y="{at + 4:.1f}" text-anchor="end">{hundredth / 100:.2f}</text>'
        )
    for quarter in range(5):
        at, label = x(most * quarter / 4), f"{most * quarter / 4:,.0f}"
        parts.append(f'  <text class="s" x="{at:.1f}" y="{HEIGHT - 30}" text-anchor="middle">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'  <text class="s" x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">samples learnt</text>')
    parts.append(f'  <path class="o" d="M{LEFT} {y(oracle):.1f}H{WIDTH - RIGHT}"/>')
    parts.append(f'  <text x="{WIDTH - RIGHT + 8}" y="{y(oracle) + 4:.1f}" fill="#2c8a4b">oracle {oracle:.4f}</text>')
    ends = sorted(curves, key=lambda curve: -curve.auc[-1])
    for place, curve in enumerate(ends):
        colour = COLOURS[curve.name]
        points = [(x(n), y(v)) for n, v in zip(curve.samples, curve.auc, strict=True) if v >= low]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'  <polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'  <circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        below = y(ends[0].auc[-1]) + 10 + 18 * place  # one below the other, however close the ends are
        parts.append(
            f'  <text x="{WIDTH - RIGHT + 8}" y="{below:.1f}" fill="{colour}">{curve.name} {curve.auc[-1]:.4f}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"

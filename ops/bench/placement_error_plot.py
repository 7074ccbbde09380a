"""The plot of expected against actual waits, as SVG: pure text, of no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from placement_error_stage import WaitPair

SIDE, MARGIN, GAP = 260, 48, 24
MIN_SECONDS = 0.01
"""Less is drawn as this: the axes are logarithmic."""
COLOURS = {"fast": "#2563eb", "slow": "#d97706"}


def plot(waits: Mapping[str, Sequence[WaitPair]]) -> str:
    """A panel for each load, side by side: what was expected to the right, what came upwards. On the line
    both are the same; above it a job waited longer than was expected."""
    longest = max((max(pair.expected, pair.actual) for pairs in waits.values() for pair in pairs), default=1)
    top = 10 ** math.ceil(math.log10(max(longest, 1.0)))
    width = MARGIN + len(waits) * (SIDE + GAP)
    height = SIDE + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (subject, pairs) in enumerate(waits.items()):
        lines += _panel(subject, pairs, MARGIN + number * (SIDE + GAP), top)
    middle = MARGIN + SIDE / 2
    lines.append(
        f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">actual wait, s</text>'
    )
    for number, (name, colour) in enumerate(COLOURS.items()):
        x = MARGIN + 8 + 90 * number
        lines.append(f'<circle cx="{x}" cy="{height - 6}" r="3" fill="{colour}"/>')
        lines.append(f'<text x="{x + 6}" y="{height - 2}">{name} worker</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(subject: str, pairs: Sequence[WaitPair], left: float, top: float) -> Iterator[str]:
    def place(seconds: float) -> float:
        return SIDE * math.log(max(seconds, MIN_SECONDS) / MIN_SECONDS) / math.log(top / MIN_SECONDS)

    bottom = MARGIN + SIDE
    yield f'<text x="{left + SIDE / 2}" y="{MARGIN - 10}" text-anchor="middle">{escape(subject)}</text>'
    yield f'<rect x="{left}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>'
    for power in range(round(math.log10(MIN_SECONDS)), round(math.log10(top)) + 1):
        at, label = place(10.0**power), f"{10.0**power:g}"
        yield f'<text x="{left + at}" y="{bottom + 14}" text-anchor="middle">{label}</text>'
        yield f'<text x="{left - 4}" y="{bottom - at + 4}" text-anchor="end">{label}</text>'
        yield f'<path d="M{left + at:g} {bottom}v-{SIDE}M{left} {bottom - at:g}h{SIDE}" stroke="#eee"/>'
    yield f'<path d="M{left} {bottom}L{left + SIDE} {MARGIN}" stroke="#333"/>'
    yield f'<text x="{left + SIDE / 2}" y="{bottom + 28}" text-anchor="middle">expected wait, s</text>'
    for pair in pairs:
        x, y = left + place(pair.expected), bottom - place(pair.actual)
        colour = COLOURS.get(pair.pool, "#333")
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}" fill-opacity="0.5"/>'

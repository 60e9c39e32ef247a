"""Charts as SVG, drawn on the server: no script, no style, colours by class, and the same content in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perennial.pages.html import Html, el


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One value in a row of values; ``low`` and ``high`` bound its interval. ``value`` None is a gap."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    marked: bool = False  # such as a version that was refused


def sparkline(points: Sequence[Point], *, title: str, width: int = 120, height: int = 28) -> Html:
    """A small line of values between 0 and 1 that stretches over their range; at most the points that are given.

    The description names first, last, least and greatest, so nothing is in the picture alone.
    """
    return _chart(points, title=title, width=width, height=height, pad=4, style="spark", band=False)


def trend(points: Sequence[Point], *, title: str, width: int = 560, height: int = 140) -> Html:
    """The same larger, with the interval of each point and a line for each end of the scale."""
    return _chart(points, title=title, width=width, height=height, pad=14, style="trend", band=True)


def describe(points: Sequence[Point]) -> str:
    """The chart in words.

    >>> describe([Point(label="1.0.0", value=0.5), Point(label="1.0.1", value=0.75)])
    '2 values from 50.0 % (1.0.0) to 75.0 % (1.0.1); least 50.0 %, greatest 75.0 %'
    """
    known = [(point.label, point.value) for point in points if point.value is not None]
    if not known:
        return "no value yet"
    values = [value for _, value in known]
    (first, start), (last, end) = known[0], known[-1]
    return (
        f"{len(known)} values from {start * 100:.1f} % ({first}) to {end * 100:.1f} % ({last}); "
        f"least {min(values) * 100:.1f} %, greatest {max(values) * 100:.1f} %"
    )


def _chart(
    points: Sequence[Point], *, title: str, width: int, height: int, pad: int, style: str, band: bool
) -> Html:  # fmt: skip
    ends = [
        value for point in points for value in (point.value, point.low if band else None, point.high if band else None)
        if value is not None
    ]  # fmt: skip
    told = describe(points)
    if not ends:
        return el("span", "no score yet", class_="none")
    low, high = min(ends), max(ends)
    if high - low < 0.02:  # a flat line is flat, not noise blown up to the full height
        low, high = low - 0.01, high + 0.01
    step = (width - 2 * pad) / max(len(points) - 1, 1)

    def at(number: int, value: float) -> tuple[float, float]:
        x = pad + number * step if len(points) > 1 else width / 2
        return round(x, 1), round(height - pad - (value - low) / (high - low) * (height - 2 * pad), 1)

    shapes: list[Html] = []
    if band:
        shapes += _scale(low, high, width=width, height=height, pad=pad)
        shapes += _intervals(points, at)
    line = [at(number, point.value) for number, point in enumerate(points) if point.value is not None]
    shapes.append(el("polyline", points=" ".join(f"{x},{y}" for x, y in line), class_="line"))
    for number, point in enumerate(points):
        if point.value is None:
            continue
        x, y = at(number, point.value)
        last = number == len(points) - 1
        if band or last or point.marked:
            dot = "dot marked" if point.marked else "dot"
            shapes.append(el("circle", el("title", _told(point)), cx=x, cy=y, r=3.5 if band else 2.5, class_=dot))
    return el(
        "svg", el("title", title), el("desc", told), shapes,
        viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=f"{title}: {told}",
        class_=f"chart {style}", focusable="false",
    )  # fmt: skip


def _told(point: Point) -> str:
    value = f"{(point.value or 0.0) * 100:.1f} %"
    ends = (
        f" ({point.low * 100:.1f} to {point.high * 100:.1f})"
        if point.low is not None and point.high is not None
        else ""
    )
    return f"{point.label}: {value}{ends}"


def _scale(low: float, high: float, *, width: int, height: int, pad: int) -> list[Html]:
    return [
        el("line", x1=pad, x2=width - pad, y1=pad, y2=pad, class_="scale"),
        el("line", x1=pad, x2=width - pad, y1=height - pad, y2=height - pad, class_="scale"),
        el("text", f"{high * 100:.1f} %", x=pad, y=pad - 3, class_="scale-text"),
        el("text", f"{low * 100:.1f} %", x=pad, y=height - 2, class_="scale-text"),
    ]


def _intervals(points: Sequence[Point], at: object) -> list[Html]:
    place = at
    assert callable(place)
    found = []
    for number, point in enumerate(points):
        if point.low is not None and point.high is not None:
            (x, bottom), (_, top) = place(number, point.low), place(number, point.high)
            found.append(el("line", x1=x, x2=x, y1=bottom, y2=top, class_="interval"))
    return found


def interval(
    low: float, middle: float, high: float, *, reach: float, title: str, width: int = 150, height: int = 16
) -> Html:
    """One difference with its interval on a scale from -``reach`` to ``reach`` with zero in the middle; shares, not points."""

    def x(value: float) -> float:
        return round(width / 2 + max(-1.0, min(1.0, value / reach)) * (width / 2 - 5), 1)

    tone = "worse" if high < 0 else "better" if low > 0 else "open"
    told = f"{title}: {middle * 100:+.1f} points, interval {low * 100:+.1f} to {high * 100:+.1f}"
    return el(
        "svg", el("title", told),
        el("line", x1=width / 2, x2=width / 2, y1=1, y2=height - 1, class_="zero"),
        el("line", x1=x(low), x2=x(high), y1=height / 2, y2=height / 2, class_="range"),
        el("circle", cx=x(middle), cy=height / 2, r=3.5, class_="dot"),
        viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=told,
        class_=f"chart forest {tone}", focusable="false",
    )  # fmt: skip

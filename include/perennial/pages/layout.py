"""The frame of every page and its parts: tables, badges, times, forms. Accessible without a script, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from perennial.pages.html import Child, Html, document, el
from perennial.pages.page import LONGEST_REASON, Asked, Page

_MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "●", "quiet": "○", "info": "i"}  # a badge is never colour alone
_SPANS = ((86_400 * 2, 86_400, "d"), (5_400, 3_600, "h"), (90, 60, "min"), (0, 1, "s"))


def frame(
    asked: Asked, *, title: str, main: Child, pages: Sequence[Page] = (), here: str = "", notice: str = ""
) -> bytes:
    """A whole page: head, skip link, navigation among ``pages`` (``here`` is the path of this one), notice, main part."""
    links = [
        el("li", el("a", page.title, href=asked.to(page.path), aria_current="page" if page.path == here else None))
        for page in pages if page.menu and asked.may(page.role)
    ]  # fmt: skip
    return document(
        el(
            "html",
            el(
                "head",
                el("meta", charset="utf-8"),
                el("meta", name="viewport", content="width=device-width, initial-scale=1"),
                el("meta", name="color-scheme", content="light dark"),
                el("title", f"{title} · Perennial"),
                el("link", rel="stylesheet", href=asked.to("/static/pages.css")),
                el("script", src=asked.to("/static/pages.js"), defer=True),
            ),
            el(
                "body",
                el("a", "Skip to the content", href="#main", class_="skip"),
                el(
                    "header",
                    el("span", "Perennial", class_="brand"),
                    el("nav", el("ul", links), aria_label="Perennial pages") if links else None,
                    el("span", el("bdi", asked.user.name), " · ", asked.role.word, class_="who"),
                    class_="top",
                ),
                el(
                    "main",
                    el("p", badge(notice, "good"), class_="notice", role="status") if notice else None,
                    main,
                    id="main",
                    tabindex="-1",
                ),
                el("footer", "As of ", when(asked.now, asked.now, exact=True), ". Times are UTC.", class_="foot"),
            ),
            lang="en",
        )
    )


def heading(title: Child, lead: Child = None, *, side: Child = None) -> Html:
    """The page's own heading, with a sentence of what it shows; ``side`` stands at its right."""
    return el(
        "div",
        el("div", el("h1", title), el("p", lead, class_="lead") if lead is not None else None),
        el("div", side, class_="side") if side is not None else None,
        class_="heading",
    )


def section(title: str, *children: Child, id: str | None = None, note: Child = None) -> Html:
    """A part of the page under a heading of the second order."""
    return el(
        "section",
        el("h2", title),
        el("p", note, class_="note") if note is not None else None,
        children,
        id=id,
        class_="card",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table; ``number`` aligns to the right with figures of one width."""

    title: str
    number: bool = False
    about: str = ""  # what the column means, shown when one points at its title


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A cell whose order differs from what it shows; ``key`` is what the script sorts by."""

    shown: Child
    key: float | str


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Child | Cell]], *, empty: str = "Nothing yet.",
    caption_shown: bool = False, sortable: bool = True,
) -> Html:  # fmt: skip
    """A table with caption and scopes; the first cell of a row is its header. ``empty`` stands there when there is no row.

    Sorting is the script's: without one the rows stand in the order that they were given.
    """
    body = [_row(columns, row) for row in rows]
    if not body:
        return el("p", empty, class_="empty")
    head = [
        el("th", column.title, scope="col", class_="num" if column.number else None, title=column.about or None)
        for column in columns
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", caption, class_=None if caption_shown else "quiet-caption"),
            el("thead", el("tr", head)),
            el("tbody", body),
            data_sortable=sortable and len(body) > 1,
        ),
        class_="scroll",
        tabindex="0",
        role="group",
        aria_label=caption,
    )


def _row(columns: Sequence[Column], row: Sequence[Child | Cell]) -> Html:
    cells = []
    for number, (column, cell) in enumerate(zip(columns, row, strict=True)):
        shown, key = (cell.shown, cell.key) if isinstance(cell, Cell) else (cell, None)
        style = "num" if column.number else None
        if number == 0:
            cells.append(el("th", shown, scope="row", class_=style, data_key=key))
        else:
            cells.append(el("td", shown, class_=style, data_key=key))
    return el("tr", cells)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and values, one pair a line."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def badge(words: str, tone: str = "quiet") -> Html:
    """A state in words, with a mark and a colour; tones: good, bad, warn, busy, quiet, info."""
    return el("span", el("span", _MARKS[tone], aria_hidden="true", class_="mark"), words, class_=f"badge {tone}")


def said(words: str | None) -> Html:
    """Words of a person or a machine: kept apart from the sentence around them, also when they run right to left."""
    return el("bdi", words or "", class_="said")


def code(words: str | None, *, short: int = 0) -> Html:
    """An id or digest; ``short`` shows so many characters (below zero: the last ones), and the whole one when pointed at."""
    whole = words or "–"
    part = whole[:short] if short > 0 else whole[short:]
    return el("code", part, title=whole if part != whole else None)


def when(time: datetime | None, now: datetime, *, exact: bool = False) -> Html:
    """A time as its distance from now, with the exact one when pointed at; ``exact`` shows that one.

    >>> from datetime import timedelta
    >>> now = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)
    >>> str(when(now - timedelta(minutes=5), now))
    '<time datetime="2026-11-21T13:57:00+00:00" title="2026-11-21 13:57:00 UTC">5 min ago</time>'
    """
    if time is None:
        return el("span", "–", class_="none")
    stamp = time.astimezone(UTC)
    precise = f"{stamp:%Y-%m-%d %H:%M:%S} UTC"
    return el("time", precise if exact else distance(stamp, now), datetime=stamp.isoformat(), title=precise)


def distance(time: datetime, now: datetime) -> str:
    """How far a time is from now, in one unit.

    >>> from datetime import timedelta
    >>> now = datetime(2026, 11, 21, tzinfo=UTC)
    >>> [distance(now + timedelta(seconds=gap), now) for gap in (0, -61, -7300, 3 * 86_400)]
    ['just now', '61 s ago', '2 h ago', 'in 3 d']
    """
    gap = (time - now).total_seconds()
    if abs(gap) < 1:
        return "just now"
    told = span(abs(gap))
    return f"in {told}" if gap > 0 else f"{told} ago"


def span(seconds: float) -> str:
    """A length of time in its largest sensible unit.

    >>> span(45), span(300), span(90_000), span(400_000)
    ('45 s', '5 min', '25 h', '4 d')
    """
    for least, unit, name in _SPANS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return "0 s"


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent, or a dash.

    >>> share(0.9312), share(None), share(0.05, 0)
    ('93.1 %', '–', '5 %')
    """
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of shares in percentage points.

    >>> points(-0.031), points(0.0)
    ('−3.1', '0.0')
    """
    if value is None:
        return "–"
    told = f"{value * 100:+.1f}"
    return "0.0" if told in {"+0.0", "-0.0"} else told.replace("-", "−")


def count(value: int | None) -> str:
    """A count with thin spaces between thousands.

    >>> count(1234567)
    '1\u2009234\u2009567'
    """
    return "–" if value is None else f"{value:,}".replace(",", "\u2009")


def post(address: str, *fields: Child, button: str, hidden: Mapping[str, str] | None = None, tone: str = "") -> Html:
    """A form that changes something; ``hidden`` are the values that it carries."""
    carried = [el("input", type="hidden", name=name, value=value) for name, value in (hidden or {}).items()]
    return el(
        "form",
        carried,
        fields,
        el("button", button, type="submit", class_=tone or None),
        method="post",
        action=address,
        class_="act",
    )


def why(id: str, *, label: str = "Why (kept in the audit log)") -> Html:
    """The field for the reason, which every action needs."""
    return el(
        "div",
        el("label", label, for_=id),
        el("input", id=id, name="reason", type="text", required=True, maxlength=LONGEST_REASON, autocomplete="off"),
        class_="field",
    )


def more(summary: Child, *children: Child, open: bool = False) -> Html:
    """Something that unfolds, without a script."""
    return el("details", el("summary", summary), children, open=open)


def lines(items: Iterable[Child]) -> Html:
    """A plain list."""
    return el("ul", [el("li", item) for item in items])

"""A tiny HTML builder in which text cannot become markup.

Markup is a value of its own type, ``Html``, that only this module makes; a ``str`` is always text and always escaped. There
is no way to hand in raw markup, and names of elements and attributes come from closed lists, so a page that compiles is inert.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias, Union, final

_SEAL: Final = object()
_VOID = frozenset({"br", "hr", "input", "link", "meta"})
_ELEMENT_NAMES = """html head title body link meta script main mark header footer nav section article aside h1 h2 h3 h4 p span div a
    ul ol li dl dt dd strong em small code pre bdi time abbr table caption thead tbody tfoot tr th td form fieldset legend label input
    select option textarea button details summary hr br figure figcaption svg g path line circle rect text polyline polygon desc"""
_ATTRIBUTE_NAMES = """id class lang title role tabindex hidden dir href rel target src defer charset name content type value
    placeholder required disabled checked selected readonly maxlength minlength min max step rows cols for action method
    autocomplete scope colspan rowspan datetime open spellcheck aria-label aria-labelledby aria-describedby aria-current aria-sort
    aria-hidden aria-live aria-expanded aria-pressed viewBox width height x y x1 y1 x2 y2 cx cy r d points transform
    preserveAspectRatio text-anchor focusable"""
_ELEMENTS, _ATTRIBUTES = frozenset(_ELEMENT_NAMES.split()), frozenset(_ATTRIBUTE_NAMES.split())
_DATA = re.compile(r"data-[a-z][a-z-]{0,30}")
_URLS = frozenset({"href", "src", "action"})
_SAFE_URL = re.compile(r"(?:https?://[^\s\"'<>\\]+|/(?![/\\])[^\s\"'<>\\]*|[?#][^\s\"'<>\\]*)", re.IGNORECASE)
# what a reader cannot see but a terminal, an editor or a parser might act on; tab and line feed stay
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


@final
class Html:
    """Finished markup. Made by ``el`` and ``join`` alone; ``str()`` gives it out."""

    __slots__ = ("_markup",)

    def __init__(self, seal: object, markup: str) -> None:
        if seal is not _SEAL:
            raise TypeError("Html is made by the builder alone; hand text in as a str, it will be escaped")
        self._markup = markup

    def __str__(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return f"Html({self._markup!r})"


Child: TypeAlias = Union[Html, str, int, float, Iterable["Child"], None]  # noqa: UP007 - it names itself
Value: TypeAlias = str | int | float | bool | None


def text(value: str) -> str:
    """Text as the builder writes it: special characters escaped, control characters shown as a replacement mark.

    >>> text('<b onclick="x">&')
    '&lt;b onclick=&quot;x&quot;&gt;&amp;'
    """
    return escape(_CONTROL.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n")), quote=True)


def el(name: str, /, *children: Child, **attributes: Value) -> Html:
    """One element. A trailing underscore of an attribute falls off, others become dashes; None and False leave it out.

    ValueError for an element or attribute that is not on the list (``style``, ``on...``) and for an address that is neither
    http(s) nor a path of this site; ``link`` is for addresses that come from data.

    >>> str(el("p", "1 < 2", el("br"), class_="note"))
    '<p class="note">1 &lt; 2<br></p>'
    >>> el("a", "x", href="javascript:alert(1)")
    Traceback (most recent call last):
    ValueError: 'javascript:alert(1)' is no address for href
    """
    if name not in _ELEMENTS:
        raise ValueError(f"{name!r} is no element of the pages")
    if name == "script" and (children or not attributes.get("src")):
        raise ValueError("a script is a file of this site")
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        parts.append(_attribute(key, value))
    parts.append(">")
    if name in _VOID:
        if children:
            raise ValueError(f"{name} holds nothing")
        return Html(_SEAL, "".join(parts))
    _write(children, parts)
    parts.append(f"</{name}>")
    return Html(_SEAL, "".join(parts))


def join(*children: Child) -> Html:
    """Several children without an element around them.

    >>> str(join("a & b", el("br")))
    'a &amp; b<br>'
    """
    parts: list[str] = []
    _write(children, parts)
    return Html(_SEAL, "".join(parts))


def link(label: Child, url: str | None, **attributes: Value) -> Html:
    """A link when the address may be one, else the label alone: addresses from data never raise and never run.

    >>> str(link("run", "data:text/html,x")), str(link("run", "/x"))
    ('<span>run</span>', '<a href="/x">run</a>')
    """
    if url is None or not is_address(url):
        return el("span", label)
    return el("a", label, href=url, **attributes)


def is_address(url: str) -> bool:
    """Whether an address is http(s) or a path, query or fragment of this site.

    >>> [is_address(one) for one in ("/a?b=1", "https://x.y/z", "//evil", "javascript:1", " /a", "#top")]
    [True, True, False, False, False, True]
    """
    return _SAFE_URL.fullmatch(url) is not None


def document(root: Html) -> bytes:
    """A whole page as bytes."""
    return f"<!doctype html>\n{root}\n".encode("utf-8", "replace")


def _attribute(key: str, value: Value) -> str:
    name = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
    if name not in _ATTRIBUTES and _DATA.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no attribute of the pages")
    if value is True:
        return f" {name}"
    if name in _URLS and not is_address(str(value)):
        raise ValueError(f"{str(value)[:80]!r} is no address for {name}")
    return f' {name}="{text(str(value))}"'


def _write(children: Iterable[Child], parts: list[str]) -> None:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child._markup)
        elif isinstance(child, str):
            parts.append(text(child))
        elif isinstance(child, int | float):
            parts.append(str(child))
        else:
            _write(child, parts)

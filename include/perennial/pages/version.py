"""The page version."""

from __future__ import annotations

from perennial.pages.html import Html
from perennial.pages.layout import heading
from perennial.pages.page import Asked, Page, Site


def _show(site: Site, asked: Asked) -> Html:
    return heading("Version")


PAGE = Page(path="/version", title="Version", show=_show)

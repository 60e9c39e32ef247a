"""The page fleet."""

from __future__ import annotations

from perennial.pages.html import Html
from perennial.pages.layout import heading
from perennial.pages.page import Asked, Page, Site


def _show(site: Site, asked: Asked) -> Html:
    return heading("Fleet")


PAGE = Page(path="/fleet", title="Fleet", show=_show)

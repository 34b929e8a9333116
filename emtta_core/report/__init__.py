"""The page on a run: what was found, as one HTML file that needs nothing else, and a server of such pages."""

from emtta_core.report.page import Page, make_page

__all__ = ["Page", "make_page"]

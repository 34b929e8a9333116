"""The report page of a run as one self-contained HTML file, and a server of such pages."""

from emtta_core.report.page import Page, make_page

__all__ = ["Page", "make_page"]

"""The page on the store documents the store's tables."""

from pathlib import Path

from store_page import document, renew

from emtta_core.store.tables import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "store.md"


def test_page_matches_generator() -> None:
    page = PAGE.read_text("utf-8")
    assert renew(page) == page, "regenerate it: python docs/tools/store_page.py docs/store.md"


def test_every_table_and_column_is_named() -> None:
    text = document()
    for table in TABLES.values():
        assert f"### {table.name}\n" in text
        for column in table.schema.names:
            assert f"| `{column}` |" in text

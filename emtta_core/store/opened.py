"""The store as a notebook sees it: asked with SQL or by the name of a report."""

from pathlib import Path
from typing import Any, Self

from emtta_core.store.catalogue import Catalogue
from emtta_core.store.result import Result
from emtta_core.store.store import Store


class OpenedStore:
    """A store to be asked, and never written; open one with `open_store`.

    Attributes:
        location: the store, as a user names it.
        catalogue: what answers.

    Example:
        >>> store = open_store("emtta-store")  # doctest: +SKIP
        >>> store.sql("SELECT domain, wer FROM cells WHERE method = $method", method="em-tok-b").df()  # doctest: +SKIP
        >>> store.report("leaderboard", run="demo-1a2b3c4d").pl()  # doctest: +SKIP
    """

    def __init__(self, store: Store) -> None:
        self.location = store.location
        self.catalogue = Catalogue(store)

    def __repr__(self) -> str:
        return f"open_store({self.location!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the memory; no question is answered after it."""
        self.catalogue.close()

    def sql(self, query: str, **parameters: Any) -> Result:
        """Return the rows of one SELECT, over the files that are there when it is asked.

        Args:
            query: the SELECT; its views are those of `sql/schema.md`.
            **parameters: values for its `$name`.

        Returns:
            The rows: `.df()` for pandas, `.pl()` for Polars, `.arrow()` for Arrow, `.rows`, `.records`, `.csv()`.

        Raises:
            EmttaError: when DuckDB refuses or fails it; the message holds DuckDB's own words.
            UsageError: when it is not a single SELECT that only reads.
        """
        return self.catalogue.query(query, parameters or None)

    def report(self, name: str, run: str | None = None, **parameters: object) -> Result:
        """Return the rows of a named report.

        Args:
            name: the report; an unknown name is answered with those there are.
            run: the run's id, for a report on a run; the newest by default.
            **parameters: the other parameters that the report declares.

        Raises:
            UsageError: when the report, the run, a parameter or a value is unknown; it lists those there are.
            EmttaError: when DuckDB fails it.
        """
        return self.catalogue.report(name, run, **{key: str(value) for key, value in parameters.items()})


def open_store(location: str | Path) -> OpenedStore:
    """Open a store to ask it.

    Args:
        location: a folder, or `s3://BUCKET/PREFIX`.

    Raises:
        StoreError: when there is none, or it cannot be read.
        UsageError: when `location` names neither.
    """
    return OpenedStore(Store.open(location))

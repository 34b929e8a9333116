"""Any data set on the Hugging Face hub that is Parquet, or that the hub has converted to it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from emtta_core.corpora.dataset_columns import DatasetColumns
from emtta_core.corpora.hosted import OnHubAlone
from emtta_core.corpora.hub import Repository
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import About
from emtta_core.identity import IDENTITY


class HubDataset(DatasetColumns, OnHubAlone):
    """A split of a data set on the hub, public or one's own, with a row an utterance.

    Attributes:
        repository: the data set, as in `facebook/voxpopuli`.
        config: its configuration, often a language.
        split: which.
    """

    about: ClassVar[About] = About(
        title="data set",
        licence="see its page",
        source="https://huggingface.co/datasets",
        get="leave out path: it is read from the hub alone; a folder that datasets saved is a corpus saved-dataset",
    )
    required: ClassVar[Collection[str]] = ("audio", "text", "id", "speaker")

    name: Annotated[Literal["hub-dataset"], IDENTITY] = "hub-dataset"
    repository: Annotated[str, IDENTITY, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
    config: Annotated[str, IDENTITY, Field(min_length=1)] = "default"
    split: Annotated[str, IDENTITY, Field(min_length=1)] = "test"

    def part(self) -> str:
        """Return data set, configuration and split."""
        return f"{self.repository}, {self.config}, {self.split}"

    def on_hub(self) -> HubSplit:
        """Return the split."""
        return HubSplit(Repository(self.repository, self.revision), self.config, self.split)

    def wanted(self) -> Mapping[str, Sequence[str]]:
        """Return the columns as the suite names them."""
        return {wanted: (name,) for wanted, name in self.named().items()}

    def refuse_columns(self, schema: "pa.Schema") -> None:
        """Refuse a data set of other columns than the suite says."""
        self.refuse_schema(f"the data set {self.repository!r}", schema)

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return id, transcript, language and speaker of a row."""
        return self.read_row(row)

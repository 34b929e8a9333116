"""AMI: meetings of four people (Carletta, LREC 2006; https://groups.inf.ed.ac.uk/ami/corpus/), cut into utterances.

On the hub, `edinburghcstr/ami` has the configurations `ihm` (a microphone at each head) and `sdm` (one on the table).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from emtta_core.corpora.hosted import OnHubAlone, stem_of, text_in
from emtta_core.corpora.hub_split import HubSplit
from emtta_core.corpora.published import About
from emtta_core.hub import Repository
from emtta_core.identity import IDENTITY


class Ami(OnHubAlone):
    """A split of the AMI meetings, 16 kHz."""

    about: ClassVar[About] = About(
        title="AMI",
        licence="CC BY 4.0",
        source="https://huggingface.co/datasets/edinburghcstr/ami",
        get="leave out path: it is read from the hub alone",
    )
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "text": ("text",),
        "id": ("audio_id", "id"),
        "speaker": ("speaker_id",),
    }

    name: Annotated[Literal["ami"], IDENTITY] = "ami"
    microphone: Annotated[Literal["ihm", "sdm"], IDENTITY] = "ihm"  # `ihm` or `sdm`
    split: Annotated[Literal["test", "validation", "train"], IDENTITY] = "test"  # which

    def part(self) -> str:
        """Microphone and split."""
        return f"{self.microphone} {self.split}"

    def on_hub(self) -> HubSplit:
        """The split in `edinburghcstr/ami`."""
        return HubSplit(Repository("dataset", "edinburghcstr/ami", self.revision), self.microphone, self.split)

    def from_row(self, row: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Id, transcript, language and speaker of a row."""
        return stem_of(row), text_in(row, "text"), "en", text_in(row, "speaker")

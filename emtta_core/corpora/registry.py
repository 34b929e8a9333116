"""The corpora that a suite can name."""

from typing import Annotated

from pydantic import Field

from emtta_core.corpora.common_voice import CommonVoice
from emtta_core.corpora.fleurs import Fleurs
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.hub_dataset import Ami, HubDataset
from emtta_core.corpora.l2arctic import L2Arctic
from emtta_core.corpora.librispeech import LibriSpeech, MultilingualLibriSpeech
from emtta_core.corpora.saved_dataset import SavedDataset
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.corpora.tedlium import TedLium

Corpus = Annotated[
    Synthetic
    | Folder
    | SavedDataset
    | HubDataset
    | LibriSpeech
    | MultilingualLibriSpeech
    | L2Arctic
    | CommonVoice
    | Fleurs
    | TedLium
    | Ami,
    Field(discriminator="name"),
]
"""Any corpus, identified by its `name`.

Each has `read_all(limit)`, its utterances; `count(limit)`, their number; `content_digest()`, which identifies their
content; `located()`, a copy pinned to its folder or commit; and `availability()`, whether it is on this machine, and
where to get it.
"""

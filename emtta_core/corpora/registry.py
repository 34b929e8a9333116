"""The corpora that a suite can name."""

from typing import Annotated

from pydantic import Field

from emtta_core.corpora.folder import Folder
from emtta_core.corpora.synthetic import Synthetic

Corpus = Annotated[Synthetic | Folder, Field(discriminator="name")]
"""Any corpus, told apart by `name`. Each has `read_all()` and `content_digest()`."""

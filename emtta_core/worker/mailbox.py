"""What cells on other machines say to the flow that began them, and the flow to them."""

from dataclasses import dataclass

from emtta_core.pipeline.progress import Event


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A worker has taken up a cell.

    Attributes:
        host: its machine.
        process: its number there.
        device: what the store calls the device that it computes on.
    """

    host: str
    process: int
    device: str


Letter = TakenUp | Event


class Mailbox:
    """Keeps what cells tell until the flow fetches it, and the flow's wish to stop until a cell tells something.

    It is an actor of Ray's, which calls one method at a time. One that is lost is begun again, empty: what it kept was
    for those who watch.
    """

    def __init__(self) -> None:
        self._letters: list[tuple[str, Letter]] = []
        self._stopping = False

    def tell(self, cell: str, letter: Letter) -> bool:
        """Take what the cell of this name tells, and return whether it is to end after its shard."""
        self._letters.append((cell, letter))
        return self._stopping

    def exchange(self, stopping: bool) -> list[tuple[str, Letter]]:
        """Take whether cells are to end after their shard, and return what they have told since the last time."""
        self._stopping = stopping
        letters, self._letters = self._letters, []
        return letters

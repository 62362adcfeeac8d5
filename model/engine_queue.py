"""Who is next: the faces that wait for a slot of `model.engine`, job by job."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class OfJob(Protocol):
    """Something that belongs to a job."""

    @property
    def job(self) -> str:
        """The job's name."""


Item = TypeVar("Item", bound=OfJob)


class FairQueue(Generic[Item]):
    """Gives a free slot to the job with the fewest faces in the batch; of equals, to the longest waiting.

    A job has waited since it came, or since it last got a slot: equals take turns. Where the queue is not
    `fair`, the job that came first gets every slot until all its faces have one. For one thread at a time.
    """

    def __init__(self, *, fair: bool = True) -> None:
        self._fair = fair
        self._jobs: dict[str, deque[Item]] = {}  # the longest waiting first

    def __len__(self) -> int:
        return sum(len(items) for items in self._jobs.values())

    def __iter__(self) -> Iterator[Item]:
        return iter([item for items in self._jobs.values() for item in items])

    def add(self, item: Item, *, first: bool = False) -> None:
        """Let an item wait as the last of its job, or as the `first`, if it had a slot before."""
        items = self._jobs.setdefault(item.job, deque())
        if first:
            items.appendleft(item)
        else:
            items.append(item)

    def remove(self, item: Item) -> None:
        """Let an item wait no longer."""
        self._jobs[item.job].remove(item)
        if not self._jobs[item.job]:
            del self._jobs[item.job]

    def next_job(self, live: Counter[str]) -> str | None:
        """Return the job that the next item is of, by how many of each job are in the batch."""
        if self._fair:
            return min(self._jobs, key=lambda job: live[job], default=None)
        return next(iter(self._jobs), None)

    def pop(self, live: Counter[str]) -> Item | None:
        """Take the next item."""
        job = self.next_job(live)
        if job is None:
            return None
        items = self._jobs[job]
        item = items.popleft()
        if self._fair or not items:
            del self._jobs[job]
        if self._fair and items:
            self._jobs[job] = items  # behind the others
        return item

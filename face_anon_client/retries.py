"""How often and how long after a call is sent again that found no service, or one that was too busy."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

JITTER = 0.25


@dataclass(frozen=True)
class Retries:
    """Exponential back-off with jitter; the service's `Retry-After` comes first.

    A call is tried up to `attempts` times. Its second try comes `first_seconds` after the first, and each
    pause is twice the one before, up to `longest_seconds`; a quarter or less is added by chance, so that
    callers who failed together do not come back together. A service that asks for a longer pause than
    `longest_seconds` is not tried again.
    """

    attempts: int = 8
    first_seconds: float = 0.5
    longest_seconds: float = 60.0

    def pause(self, attempt: int, retry_after: float | None) -> float | None:
        """Return the seconds from the failure of the `attempt`-th try (from 1) to the next; None for none."""
        asked = retry_after or 0.0
        if attempt >= self.attempts or asked > self.longest_seconds:
            return None
        back_off = min(self.first_seconds * 2.0 ** (attempt - 1), self.longest_seconds)
        seconds = back_off if retry_after is None else asked
        return seconds * (1 + JITTER * random.random())  # noqa: S311  spreads callers, hides nothing


def seconds_of(retry_after: str | None) -> float | None:
    """Read a `Retry-After` header (RFC 9110, section 10.2.3): seconds or a date; None where it is neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

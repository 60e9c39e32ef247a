"""Who answers: a split of the keys that is the same in every process, every time, and only ever grows."""

from __future__ import annotations

import hashlib

from perennial.domain.words import Arm


def share(key: str, agent: str) -> float:
    """Where a key stands between 0 and 1 for one agent: the first 53 bits of a sha256, so that every host agrees.

    Salted with the agent, so that one person is not the canary of the whole fleet.

    >>> 0 <= share("reader-1", "scout") < 1, share("reader-1", "scout") == share("reader-1", "analyst")
    (True, False)
    """
    digest = hashlib.sha256(f"{agent}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2.0**53


def arm_for(key: str, agent: str, weight: float) -> Arm:
    """The arm of one key when the candidate has ``weight`` (0 to 1) of the keys. Keys in a small canary stay in a
    larger one.

    >>> arm_for("reader-1", "scout", 0.0).value, arm_for("reader-1", "scout", 1.0).value
    ('champion', 'candidate')
    """
    return Arm.CANDIDATE if share(key, agent) < weight else Arm.CHAMPION

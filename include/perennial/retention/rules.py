"""Which versions of an agent keep their files: pure, over what the ledger and the rollouts say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def kept_versions(
    versions: Sequence[str], *, in_play: Mapping[str, str], champions: Iterable[str], bases: Mapping[str, str | None],
    keep_versions: int, keep_champions: int,
) -> dict[str, str]:  # fmt: skip
    """Version -> why its files stay; a version that is not in the answer may go.

    ``versions`` and ``champions`` newest first; ``in_play`` is what something may open at any moment; ``bases`` the version that
    each one was trained from. The base of a kept version stays too (one step, not the whole chain): ``reproduce`` starts from it.
    Runs in the task of the DAG ``retention``.

    >>> kept_versions(["1.0.4", "1.0.3", "1.0.2", "1.0.1", "1.0.0"], in_play={"1.0.1": "held by a person"}, champions=["1.0.4"],
    ...               bases={"1.0.4": "1.0.3", "1.0.1": "1.0.0"}, keep_versions=1, keep_champions=2)
    {'1.0.4': 'one of the newest 1', '1.0.1': 'held by a person', '1.0.3': 'base of 1.0.4', '1.0.0': 'base of 1.0.1'}
    """
    known = set(versions)
    kept: dict[str, str] = {}
    for version in versions[:keep_versions]:
        kept[version] = f"one of the newest {keep_versions}"
    for version in list(dict.fromkeys(champions))[:keep_champions]:
        kept.setdefault(version, f"one of the newest {keep_champions} champions")
    for version, why in in_play.items():
        kept.setdefault(version, why)
    for version in list(kept):
        base = bases.get(version)
        if base is not None:
            kept.setdefault(base, f"base of {version}")
    return {version: why for version, why in kept.items() if version in known}

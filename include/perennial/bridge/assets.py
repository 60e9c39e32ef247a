"""The two assets of an agent: what is due, and what is a candidate."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from perennial.bridge.triggers import DueTrigger

GROUP = "perennial"


def due_asset(agent: str) -> Any:
    """``perennial://due/<agent>``: an event says that the agent should train now. Watched by the triggerer."""
    watcher = AssetWatcher(name=f"due_{agent}", trigger=DueTrigger(agent=agent))
    return Asset(name=f"due_{agent}", uri=f"perennial://due/{agent}", group=GROUP, watchers=[watcher])


def candidate_asset(agent: str) -> Any:
    """``perennial://candidate/<agent>``: an event says that a released version waits for its rollout."""
    return Asset(name=f"candidate_{agent}", uri=f"perennial://candidate/{agent}", group=GROUP)

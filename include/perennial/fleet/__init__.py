"""What an agent is, and the loader of the user's fleet files."""

from perennial.fleet.agent import Agent, Breaker, Gates, Rollout, Selection, Task
from perennial.selection.sent import TRUSTED

__all__ = ["TRUSTED", "Agent", "Breaker", "Gates", "Rollout", "Selection", "Task"]

"""What an agent is, and the loader of the user's fleet files."""

from perennial.fleet.agent import Agent, Breaker, Gates, Rollout, Selection, Task
from perennial.fleet.budget import Budget
from perennial.selection.sent import TRUSTED

__all__ = ["TRUSTED", "Agent", "Breaker", "Budget", "Gates", "Rollout", "Selection", "Task"]

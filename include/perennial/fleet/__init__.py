"""What an agent is, and the loader of the user's fleet files."""

from perennial.fleet.agent import Agent, Breaker, Gates, Rollout, Selection, Task

__all__ = ["Agent", "Breaker", "Gates", "Rollout", "Selection", "Task"]

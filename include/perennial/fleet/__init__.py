"""What an agent is, and the loader of the user's fleet files."""

from perennial.fleet.agent import Agent, Gates, Rollout, Selection, Task

__all__ = ["Agent", "Gates", "Rollout", "Selection", "Task"]

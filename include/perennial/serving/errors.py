"""What a caller of the gateway may meet beside the shared errors."""

from __future__ import annotations

from perennial.errors import RolloutError


class NotServing(RolloutError):
    """No model answers for this agent or task yet; wait for the first rollout, or read the error in ``/v1/agents``."""


class Overloaded(RolloutError):
    """More requests wait for a model than it can answer in time; nobody's failure, and not recorded as one. Ask again
    later."""


class ModelFailed(RolloutError):
    """The model raised or answered with what is no number; recorded, so the rollout's watch sees it. Safe to ask
    again."""

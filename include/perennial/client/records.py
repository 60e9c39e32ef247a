"""The two records of the predecessor, field by field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass
class TrainingExample:
    """One example as agents know it. Scores lie in [0, 1]; the priority is 0 low, 1 medium, 2 high or 3 critical."""

    agent_name: str
    task_type: str
    input_text: str
    expected_output: Any
    uncertainty_score: float
    importance_score: float
    source_url: str
    timestamp: datetime
    user_feedback: str | None = None
    correction_priority: int = 0


@dataclass
class ModelPerformance:
    """One update in the history; None where nothing was measured, as before a first version."""

    agent_name: str
    model_name: str
    accuracy_before: float | None
    accuracy_after: float | None
    examples_trained: int
    update_timestamp: datetime
    rollback_triggered: bool = False

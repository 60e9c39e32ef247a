"""The predecessor's module functions over one coordinator per process."""

from __future__ import annotations

import logging
import threading
from typing import Any

from perennial.client.coordinator import OnTheFlyTrainingCoordinator
from perennial.client.limits import DEFAULTS, DefaultInt

logger = logging.getLogger(__name__)

_guard = threading.Lock()
_coordinator: OnTheFlyTrainingCoordinator | None = None
_given: int | None = None


def initialize_online_training(
    update_threshold: int = DefaultInt(DEFAULTS["update_threshold"]),
) -> OnTheFlyTrainingCoordinator:
    """Make this process's coordinator, once. A later call with another threshold changes nothing and is reported."""
    global _coordinator, _given
    with _guard:
        if _coordinator is None:
            _coordinator, _given = OnTheFlyTrainingCoordinator(update_threshold=update_threshold), update_threshold
        elif not isinstance(update_threshold, DefaultInt) and update_threshold != _given:
            logger.warning(
                "online training was initialised with update_threshold %s; %s is ignored, make a coordinator to change it",
                _given, update_threshold,
            )  # fmt: skip
        return _coordinator


def get_training_coordinator() -> OnTheFlyTrainingCoordinator | None:
    """This process's coordinator, or None before ``initialize_online_training`` and any add."""
    return _coordinator


def forget_coordinator() -> None:
    """Forget this process's coordinator, as tests and forked workers need."""
    global _coordinator, _given
    with _guard:
        _coordinator = _given = None


def add_training_example(
    agent_name: str,
    task_type: str,
    input_text: str,
    expected_output: Any,
    uncertainty_score: float,
    importance_score: float = 0.5,
    source_url: str = "",
    user_feedback: str | None = None,
    correction_priority: int = 0,
    **more: Any,
) -> str:
    """Add one example; see ``OnTheFlyTrainingCoordinator.add_training_example``."""
    return initialize_online_training().add_training_example(
        agent_name, task_type, input_text, expected_output, uncertainty_score, importance_score, source_url,
        user_feedback, correction_priority, **more,
    )  # fmt: skip


def add_prediction_feedback(
    agent_name: str,
    task_type: str,
    input_text: str,
    predicted_output: Any,
    actual_output: Any,
    confidence_score: float,
    **more: Any,
) -> str | None:
    """Tell what a model answered and what was right; see ``OnTheFlyTrainingCoordinator.add_prediction_feedback``."""
    return initialize_online_training().add_prediction_feedback(
        agent_name, task_type, input_text, predicted_output, actual_output, confidence_score, **more
    )


def add_training_feedback(
    agent_name: str,
    task_type: str,
    input_text: str,
    predicted_output: Any,
    actual_output: Any,
    confidence: float,
    **more: Any,
) -> str | None:
    """``add_prediction_feedback`` under its other name, with ``confidence``."""
    return add_prediction_feedback(
        agent_name, task_type, input_text, predicted_output, actual_output, confidence, **more
    )


def add_user_correction(
    agent_name: str,
    task_type: str,
    input_text: str,
    incorrect_output: Any,
    correct_output: Any,
    priority: int = 2,
    **more: Any,
) -> str:
    """Correct an answer; see ``OnTheFlyTrainingCoordinator.add_user_correction``."""
    return initialize_online_training().add_user_correction(
        agent_name, task_type, input_text, incorrect_output, correct_output, priority, **more
    )


def submit_correction(
    agent_name: str,
    task_type: str,
    input_text: str,
    incorrect_output: Any,
    correct_output: Any,
    priority: int = 2,
    explanation: str = "",
    **more: Any,
) -> dict[str, Any]:
    """Correct an answer and get the reply for a web handler."""
    return initialize_online_training().submit_correction(
        agent_name, task_type, input_text, incorrect_output, correct_output, priority, explanation, **more
    )


def force_update_agent(agent_name: str) -> bool:
    """Ask for a training now; False for an agent that the fleet does not know."""
    return initialize_online_training().force_update_agent(agent_name)


def get_training_status() -> dict[str, Any]:
    """is_training, buffer_sizes, total_examples, performance_history_size, recent_performance and the two thresholds."""
    return initialize_online_training().get_training_status()


def get_online_training_status() -> dict[str, Any]:
    """The status of this process's coordinator, or ``{"status": "not_initialized"}`` before there is one."""
    coordinator = get_training_coordinator()
    return {"status": "not_initialized"} if coordinator is None else coordinator.get_training_status()

"""The predecessor's coordinator over the shared buffer: the same methods, but every process sees the same rows."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from perennial.client.feedback import correction_note, worth
from perennial.client.limits import DEFAULTS, DefaultFloat, DefaultInt, limits_of
from perennial.client.records import ModelPerformance, TrainingExample
from perennial.domain.example import Example
from perennial.domain.words import Source
from perennial.errors import InvalidExample, StoreUnavailable
from perennial.ingest.checks import json_of
from perennial.ingest.door import Door, uncertainty_of

if TYPE_CHECKING:
    from perennial.ingest.buffer import BufferStore

logger = logging.getLogger(__name__)


def _by_whom() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"


class OnTheFlyTrainingCoordinator:
    """Collects examples, feedback and corrections for all agents; trainings themselves are Airflow's.

    Each value given here on purpose, or by a TRAINING_* variable of this process, holds for the whole deployment from
    then on: a threshold really moves when a run starts. An agent whose fleet file declares a value keeps its own. Order:
    constructor, environment, settings file, default.

    Holds no rows and starts no thread. Calls return after commit; InvalidExample names the field that is wrong,
    StoreUnavailable says that nothing was acknowledged and the call may be repeated (with the same ``example_id``).
    """

    def __init__(
        self,
        update_threshold: int = DefaultInt(DEFAULTS["update_threshold"]),
        max_buffer_size: int = DefaultInt(DEFAULTS["max_buffer_size"]),
        performance_window: int = DefaultInt(DEFAULTS["performance_window"]),
        rollback_threshold: float = DefaultFloat(DEFAULTS["rollback_threshold"]),
        *,
        buffer: BufferStore | None = None,
    ) -> None:
        self._limits = limits_of(
            {
                "update_threshold": update_threshold,
                "max_buffer_size": max_buffer_size,
                "performance_window": performance_window,
                "rollback_threshold": rollback_threshold,
            }
        )
        self._own = (buffer, Door(buffer)) if buffer is not None else None
        self._told = not (self._limits.explicit or self._limits.environment)
        try:
            self._tell_limits()
        except StoreUnavailable as error:
            logger.warning("the coordinator's limits are not set yet: %s", error)

    # --- the store ----------------------------------------------------------------------------------------------------

    @property
    def buffer(self) -> BufferStore:
        """The buffer that all processes share."""
        return self._own[0] if self._own else _connection().buffer

    @property
    def _door(self) -> Door:
        return self._own[1] if self._own else _connection().door

    def _tell_limits(self) -> None:
        if self._told:
            return
        for name, value in self._limits.environment.items():
            self.buffer.set_override(name, value, by=f"environment of {_by_whom()}")
        for name, value in self._limits.explicit.items():
            before = self.buffer.overrides().get(name)
            if before is not None and before != value:
                logger.warning("%s of the deployment changes from %s to %s", name, before, value)
            self.buffer.set_override(name, value, by=f"constructor in {_by_whom()}")
        self._told = True

    def limit(self, name: str) -> float:
        """What holds in the deployment for one of update_threshold, max_buffer_size, performance_window, rollback_threshold.

        Agents whose fleet file declares a value of their own go by that.
        """
        override = self.buffer.overrides().get(name)
        if override is None and self._own is None:
            from perennial.settings import load_settings

            override = float(getattr(load_settings(), name))
        value = DEFAULTS[name] if override is None else override
        return value if name == "rollback_threshold" else int(value)

    @property
    def update_threshold(self) -> int:
        """Examples that start a training."""
        return int(self.limit("update_threshold"))

    @property
    def max_buffer_size(self) -> int:
        """Waiting examples per agent."""
        return int(self.limit("max_buffer_size"))

    @property
    def performance_window(self) -> int:
        """Outcomes over which ``get_recent_accuracy`` is taken."""
        return int(self.limit("performance_window"))

    @property
    def rollback_threshold(self) -> float:
        """Drop in accuracy that a candidate may not exceed."""
        return self.limit("rollback_threshold")

    # --- adding -------------------------------------------------------------------------------------------------------

    def add_training_example(
        self,
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
        """Add one example; returns the id under which it is stored. ``expected_output`` None: it waits for a label.

        ``more``: timestamp, example_id (repeat it to make a repeat harmless), source_id, tag, predicted_output.
        """
        return self._add(
            self._door.check(
                agent_name=agent_name, task_type=task_type, input_text=input_text, expected_output=expected_output,
                uncertainty_score=uncertainty_score, importance_score=importance_score, source_url=source_url,
                user_feedback=user_feedback, correction_priority=correction_priority, **more,
            )
        )  # fmt: skip

    def add_example(self, example: TrainingExample) -> str:
        """Add one ``TrainingExample``; its timestamp stays."""
        return self.add_training_example(**vars(example))

    def add_prediction_feedback(
        self,
        agent_name: str,
        task_type: str,
        input_text: str,
        predicted_output: Any,
        actual_output: Any,
        confidence_score: float,
        **more: Any,
    ) -> str | None:
        """Tell what a model answered and what was right (None: not known); returns an id, or None when it teaches nothing.

        Kept when the answer was unsure (uncertainty above 0.6) or wrong. Without the truth it waits, unlabelled.
        """
        kind, given = self._door.outputs(agent_name, task_type, predicted_output, actual_output)
        predicted, actual = json_of(given[0], "predicted_output"), json_of(given[1], "actual_output")
        value = worth(kind, predicted, actual, uncertainty_of(confidence_score))
        checked = self._door.check(
            agent_name=agent_name, task_type=task_type, input_text=input_text, expected_output=actual,
            uncertainty_score=value.uncertainty, importance_score=value.importance, predicted_output=predicted,
            source=Source.FEEDBACK, **more,
        )  # fmt: skip
        return self._add(checked) if value.kept else None

    def add_user_correction(
        self,
        agent_name: str,
        task_type: str,
        input_text: str,
        incorrect_output: Any,
        correct_output: Any,
        priority: int = 2,
        *,
        explanation: str = "",
        source_tag: str = "manual",
        **more: Any,
    ) -> str:
        """Correct an answer; returns the id. Priority 2 and 3 start a training within seconds.

        ``source_tag`` says why: manual, qa, domain_expert, critical_error, or a word of your own.
        """
        wrong, right = json_of(incorrect_output, "incorrect_output"), json_of(correct_output, "correct_output")
        if right is None:
            raise InvalidExample("correct_output", "is None", "send the right answer")
        checked = self._door.check(
            agent_name=agent_name, task_type=task_type, input_text=input_text, expected_output=right,
            uncertainty_score=1.0, importance_score=1.0, correction_priority=priority, predicted_output=wrong,
            user_feedback=correction_note(wrong, right, explanation), tag=source_tag, source=Source.CORRECTION, **more,
        )  # fmt: skip
        return self._add(checked)

    def submit_correction(
        self,
        agent_name: str,
        task_type: str,
        input_text: str,
        incorrect_output: Any,
        correct_output: Any,
        priority: int = 2,
        explanation: str = "",
        **more: Any,
    ) -> dict[str, Any]:
        """Correct an answer from a web handler; returns what to send back as JSON."""
        from datetime import UTC, datetime

        identity = self.add_user_correction(
            agent_name,
            task_type,
            input_text,
            incorrect_output,
            correct_output,
            priority,
            explanation=explanation,
            **more,
        )
        return {
            "correction_submitted": True, "agent_name": agent_name, "task_type": task_type,
            "incorrect_output": str(incorrect_output),
            "correct_output": str(correct_output), "priority": int(priority),
            "explanation": explanation, "immediate_update": int(priority) >= 2,
            "timestamp": datetime.now(UTC).isoformat(), "example_id": identity,
        }  # fmt: skip

    def _add(self, example: Example) -> str:
        self._tell_limits()
        return str(self.buffer.add(example).ids[0])

    # --- asking -------------------------------------------------------------------------------------------------------

    def get_training_status(self) -> dict[str, Any]:
        """The seven keys of the predecessor, with values from the store."""
        buffer = self.buffer
        sizes = buffer.waiting()
        return {
            "is_training": bool(buffer.running()),
            "buffer_sizes": sizes,
            "total_examples": sum(sizes.values()),
            "performance_history_size": buffer.performance_size(),
            "recent_performance": self.get_performance_history(limit=5),
            "update_threshold": self.update_threshold,
            "rollback_threshold": self.rollback_threshold,
        }

    def get_training_example(self, example_id: str) -> TrainingExample | None:
        """One example as it is kept: with its text redacted, so None before it is admitted and when it is not there."""
        from uuid import UUID

        row = self.buffer.example(UUID(example_id))
        if row is None or row.input_text is None:
            return None
        return TrainingExample(
            agent_name=row.agent, task_type=row.task, input_text=row.input_text, expected_output=row.expected_output,
            uncertainty_score=row.uncertainty, importance_score=row.importance, source_url=row.source_url,
            timestamp=row.created_at, user_feedback=row.user_feedback, correction_priority=row.priority,
        )  # fmt: skip

    def get_performance_history(self, agent_name: str | None = None, limit: int = 20) -> list[ModelPerformance]:
        """The last updates, oldest first, of one agent or all; refused and rolled back ones too."""
        return [
            ModelPerformance(
                agent_name=line.agent_name, model_name=line.model_name, accuracy_before=line.accuracy_before,
                accuracy_after=line.accuracy_after, examples_trained=line.examples_trained,
                update_timestamp=line.update_timestamp, rollback_triggered=line.rollback_triggered,
            )
            for line in self.buffer.performance(agent_name, limit)
        ]  # fmt: skip

    def get_recent_accuracy(self, agent_name: str) -> float | None:
        """Share of right answers among the last ``performance_window`` outcomes of production; None without any."""
        return self.buffer.recent_accuracy(agent_name, self.performance_window)

    def get_corrections(self, agent_name: str, source_tag: str | None = None) -> dict[str, dict[str, int]]:
        """Corrections by tag and state, of one tag or all."""
        found = self.buffer.corrections_by_tag(agent_name)
        return found if source_tag is None else {source_tag: found.get(source_tag, {})}

    def force_update_agent(self, agent_name: str) -> bool:
        """Ask for a training now; returns at once. False when the fleet does not know the agent.

        With nothing waiting the run ends by itself and says so; the log says it here.
        """
        if agent_name not in self._door.fleet(fresh=True):
            logger.warning("the fleet does not know the agent that was to be trained; nothing was started")
            return False
        self._tell_limits()
        self.buffer.request_training(agent_name, requested_by=_by_whom())
        if not self.buffer.waiting().get(agent_name):
            logger.warning("nothing to train: no example of %s waits", agent_name)
        return True


def _connection() -> Any:
    from perennial.client.connection import connection

    return connection()

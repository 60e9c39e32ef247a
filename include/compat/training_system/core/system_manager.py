"""The predecessor's manager of all agents, over ``perennial.client``: same names, arguments and replies.

What it declared by hand (agents, thresholds, tasks) comes from the fleet. Replies that said ``error`` still do; the
message is ours and holds no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from perennial.client import OnTheFlyTrainingCoordinator, initialize_online_training
from perennial.errors import PerennialError

_REQUIRED = ("agent_name", "task_type", "input_text", "incorrect_output", "correct_output")


class SystemWideTrainingManager:
    """Talks to the coordinator of this process."""

    @property
    def coordinator(self) -> OnTheFlyTrainingCoordinator:
        """This process's coordinator, made when there is none."""
        return initialize_online_training()

    def collect_agent_prediction(
        self,
        agent_name: str,
        task_type: str,
        input_text: str,
        prediction: Any,
        confidence: float,
        ground_truth: Any = None,
        source_url: str = "",
    ) -> None:
        """Feedback on one prediction; without ``ground_truth`` it waits, unlabelled, and is never its own label."""
        self.coordinator.add_prediction_feedback(
            agent_name, task_type, input_text, prediction, ground_truth, confidence, source_url=source_url
        )

    def submit_user_correction(
        self,
        agent_name: str,
        task_type: str,
        input_text: str,
        incorrect_output: Any,
        correct_output: Any,
        priority: int = 2,
        explanation: str = "",
    ) -> dict[str, Any]:
        """Correct an answer; ``correction_submitted`` says whether it is durable."""
        try:
            return self.coordinator.submit_correction(
                agent_name, task_type, input_text, incorrect_output, correct_output, priority, explanation
            )
        except PerennialError as error:
            return {"correction_submitted": False, "error": str(error)}

    def get_system_training_dashboard(self) -> dict[str, Any]:
        """All agents of the fleet with their buffers and thresholds."""
        coordinator = self.coordinator
        status = coordinator.get_training_status()
        agents = {agent: self._agent_status(agent, size) for agent, size in status["buffer_sizes"].items()}
        return {
            "system_status": {
                "online_training_active": status["is_training"],
                "total_training_examples": status["total_examples"],
                "agents_managed": len(agents),
                "last_update": datetime.now(UTC).isoformat(),
            },
            "agent_status": agents,
            "model_performance": status["recent_performance"],
            "training_configuration": {
                "update_thresholds": {agent: line["update_threshold"] for agent, line in agents.items()},
                "rollback_threshold": status["rollback_threshold"],
                "performance_window": coordinator.performance_window,
            },
        }

    def _agent_status(self, agent: str, size: int) -> dict[str, Any]:
        buffer = self.coordinator.buffer
        due, tasks = buffer.due(agent), sorted({limits.name for limits in buffer.fleet()[agent].values()})
        return {
            "buffer_size": size,
            "update_threshold": due.threshold,
            "update_ready": due.due,
            "progress_percentage": min(100, size / due.threshold * 100),
            "models_count": len(tasks),  # one component per task
            "supported_tasks": tasks,
        }

    def force_agent_update(self, agent_name: str) -> dict[str, Any]:
        """Ask for a training now."""
        started = self.coordinator.force_update_agent(agent_name)
        reply = {
            "update_triggered": started, "agent_name": agent_name, "timestamp": datetime.now(UTC).isoformat(), "forced": True
        }  # fmt: skip
        return reply if started else {**reply, "error": "the fleet does not know this agent"}

    def bulk_correction_import(self, corrections: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Many corrections, of priority 1 unless they say otherwise."""
        errors: list[str] = []
        for number, correction in enumerate(corrections):
            if any(field not in correction for field in _REQUIRED):
                errors.append(f"Correction {number}: Missing required fields")
                continue
            fields = {field: correction[field] for field in _REQUIRED}
            priority, explanation = correction.get("priority", 1), correction.get("explanation", "")
            reply = self.submit_user_correction(**fields, priority=priority, explanation=explanation)
            if not reply["correction_submitted"]:
                errors.append(f"Correction {number}: {reply['error']}")
        return {
            "total_corrections": len(corrections),
            "successfully_imported": len(corrections) - len(errors),
            "failed_imports": len(errors),
            "errors": errors,
        }

    def get_agent_performance_history(self, agent_name: str, limit: int = 20) -> list[dict[str, Any]]:
        """The last updates of one agent, newest first."""
        return [asdict(line) for line in reversed(self.coordinator.get_performance_history(agent_name, limit))]


_manager: SystemWideTrainingManager | None = None


def get_system_training_manager() -> SystemWideTrainingManager:
    """This process's manager."""
    global _manager
    if _manager is None:
        _manager = SystemWideTrainingManager()
    return _manager


def collect_prediction(
    agent_name: str,
    task_type: str,
    input_text: str,
    prediction: Any,
    confidence: float,
    ground_truth: Any = None,
    source_url: str = "",
) -> None:
    """Feedback on one prediction."""
    get_system_training_manager().collect_agent_prediction(
        agent_name, task_type, input_text, prediction, confidence, ground_truth, source_url
    )


def submit_correction(
    agent_name: str,
    task_type: str,
    input_text: str,
    incorrect_output: Any,
    correct_output: Any,
    priority: int = 2,
    explanation: str = "",
) -> dict[str, Any]:
    """Correct an answer."""
    return get_system_training_manager().submit_user_correction(
        agent_name, task_type, input_text, incorrect_output, correct_output, priority, explanation
    )


def get_training_dashboard() -> dict[str, Any]:
    """All agents with their buffers and thresholds."""
    return get_system_training_manager().get_system_training_dashboard()


def force_update(agent_name: str) -> dict[str, Any]:
    """Ask for a training now."""
    return get_system_training_manager().force_agent_update(agent_name)

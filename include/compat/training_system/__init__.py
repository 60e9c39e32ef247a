"""The predecessor's package name: existing imports go on working and reach the shared buffer."""

from training_system.core.system_manager import (
    SystemWideTrainingManager,
    collect_prediction,
    force_update,
    get_system_training_manager,
    get_training_dashboard,
    submit_correction,
)
from training_system.core.training_coordinator import (
    ModelPerformance,
    OnTheFlyTrainingCoordinator,
    TrainingExample,
    add_prediction_feedback,
    add_training_example,
    add_training_feedback,
    add_user_correction,
    get_online_training_status,
    get_training_coordinator,
    get_training_status,
    initialize_online_training,
)

__all__ = [
    "ModelPerformance",
    "OnTheFlyTrainingCoordinator",
    "SystemWideTrainingManager",
    "TrainingExample",
    "add_prediction_feedback",
    "add_training_example",
    "add_training_feedback",
    "add_user_correction",
    "collect_prediction",
    "force_update",
    "get_online_training_status",
    "get_system_training_manager",
    "get_training_coordinator",
    "get_training_dashboard",
    "get_training_status",
    "initialize_online_training",
    "submit_correction",
]

"""The predecessor's coordinator module, over ``perennial.client``."""

from perennial.client import (
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
    "TrainingExample",
    "add_prediction_feedback",
    "add_training_example",
    "add_training_feedback",
    "add_user_correction",
    "get_online_training_status",
    "get_training_coordinator",
    "get_training_status",
    "initialize_online_training",
]

"""What an agent installs to send feedback: the predecessor's names over the shared buffer.

Imports in milliseconds; the database driver and the settings are loaded with the first call. Every call returns after the
row is durable, or raises: InvalidExample names the field, StoreUnavailable says that nothing was acknowledged.
"""

from perennial.client.bulk import add_examples, import_file
from perennial.client.connection import close_connection_pool, get_pool_stats, initialize_connection_pool
from perennial.client.coordinator import OnTheFlyTrainingCoordinator
from perennial.client.records import ModelPerformance, TrainingExample
from perennial.client.reports import report_quality_issue
from perennial.client.shared import (
    add_prediction_feedback,
    add_training_example,
    add_training_feedback,
    add_user_correction,
    force_update_agent,
    get_online_training_status,
    get_training_coordinator,
    get_training_status,
    initialize_online_training,
    submit_correction,
)

__all__ = [
    "ModelPerformance",
    "OnTheFlyTrainingCoordinator",
    "TrainingExample",
    "add_examples",
    "add_prediction_feedback",
    "add_training_example",
    "add_training_feedback",
    "add_user_correction",
    "close_connection_pool",
    "force_update_agent",
    "get_online_training_status",
    "get_pool_stats",
    "get_training_coordinator",
    "get_training_status",
    "import_file",
    "initialize_connection_pool",
    "initialize_online_training",
    "report_quality_issue",
    "submit_correction",
]

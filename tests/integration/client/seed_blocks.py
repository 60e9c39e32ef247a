"""Code blocks of the predecessor's documentation, word for word."""

RUNTIME_CONFIGURATION = """\
# Initialize with custom parameters
coordinator = OnTheFlyTrainingCoordinator(
    update_threshold=100,      # More examples before update
    max_buffer_size=2000,      # Larger training buffers
    performance_window=200,    # More examples for evaluation
    rollback_threshold=0.03    # More sensitive rollback
)
"""

AGENT_INTEGRATION = """\
# In agent prediction code
def make_prediction(self, input_text: str) -> PredictionResult:
    # Make prediction
    result = self.model.predict(input_text)

    # Add to training system if low confidence
    if result.confidence < 0.7:
        add_prediction_feedback(
            agent_name=self.agent_name,
            task_type=self.task_type,
            input_text=input_text,
            predicted_output=result.output,
            actual_output=None,  # Will be filled by user/oracle
            confidence_score=result.confidence
        )

    return result
"""

USER_INTERFACE = """\
# In user interface correction workflow
def submit_correction(agent_name: str, task_type: str,
                     input_text: str, incorrect_output: Any, correct_output: Any):
    \"\"\"Submit user correction for model improvement\"\"\"

    add_user_correction(
        agent_name=agent_name,
        task_type=task_type,
        input_text=input_text,
        incorrect_output=incorrect_output,
        correct_output=correct_output,
        priority=2  # High priority
    )

    # Immediate update will be triggered automatically
"""

DASHBOARD = """\
# Get training system status
status = get_online_training_status()

print(f"Training Active: {status['is_training']}")
print(f"Total Examples: {status['total_examples']}")
print("Buffer Sizes:")
for agent, size in status['buffer_sizes'].items():
    print(f"  {agent}: {size} examples")
"""

NOT_STARTING = """\
# Check training status
status = get_training_status()
print(f"Training active: {status['is_training']}")

# Force update if needed
coordinator.force_update_agent('scout')
"""

CONNECTION_ISSUES = """\
# Check connection pool status
from common.database import get_pool_stats
stats = get_pool_stats()
print(f"Active connections: {stats['connections_in_use']}")

# Restart connection pool if needed
from common.database import initialize_connection_pool
initialize_connection_pool()
"""

PERSIST = """\
def _persist_training_example(self, example: TrainingExample):
    \"\"\"Store training example in database for persistence\"\"\"
    execute_query(\"\"\"
        INSERT INTO training_examples
        (agent_name, task_type, input_text, expected_output, uncertainty_score,
         importance_score, source_url, timestamp, user_feedback, correction_priority)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    \"\"\", (
        example.agent_name, example.task_type, example.input_text,
        json.dumps(example.expected_output), example.uncertainty_score,
        example.importance_score, example.source_url, example.timestamp,
        example.user_feedback, example.correction_priority
    ), fetch=False)
"""

CONNECTION = """\
def _get_db_connection(self):
    \"\"\"Get database connection using connection pooling\"\"\"
    return get_db_connection()  # Uses common.database connection pooling
"""

SELECTION = """\
training_examples.sort(
    key=lambda x: (x.correction_priority, x.importance_score, x.uncertainty_score),
    reverse=True
)
"""

EXAMPLE_FIELDS = """\
@dataclass
class TrainingExample:
    agent_name: str              # Target agent (scout, analyst, critic, etc.)
    task_type: str              # Task category (sentiment, fact_check, entity_extraction)
    input_text: str             # Input data for training
    expected_output: Any        # Correct output/label
    uncertainty_score: float    # Model uncertainty (0.0-1.0)
    importance_score: float     # Training priority (0.0-1.0)
    source_url: str             # Data source attribution
    timestamp: datetime         # Creation timestamp
    user_feedback: Optional[str] = None
    correction_priority: int = 0  # 0=low, 1=medium, 2=high, 3=critical
"""

PERFORMANCE_FIELDS = """\
@dataclass
class ModelPerformance:
    agent_name: str
    model_name: str
    accuracy_before: float
    accuracy_after: float
    examples_trained: int
    update_timestamp: datetime
    rollback_triggered: bool = False
"""

ENVIRONMENT = """\
# Training Configuration
TRAINING_UPDATE_THRESHOLD=50
TRAINING_MAX_BUFFER_SIZE=1000
TRAINING_PERFORMANCE_WINDOW=100
TRAINING_ROLLBACK_THRESHOLD=0.05
"""

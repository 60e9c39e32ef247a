"""One training, step by step: each function is the body of one Airflow task and can be killed and run again."""

from perennial.flows.train.approval import question, record_decision
from perennial.flows.train.claim import admit, claim
from perennial.flows.train.evaluate import evaluate
from perennial.flows.train.fast_lane import fast_lane
from perennial.flows.train.fit import select, train
from perennial.flows.train.gate import gate
from perennial.flows.train.guard import redact, validate
from perennial.flows.train.register import register
from perennial.flows.train.settle import settle

__all__ = [
    "admit", "claim", "evaluate", "fast_lane", "gate", "question", "record_decision", "redact", "register", "select", "settle", "train",
    "validate",
]  # fmt: skip

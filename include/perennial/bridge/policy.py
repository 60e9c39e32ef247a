"""What every task of ours has in common: timeouts, seconds between tries, and which errors are hopeless."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from perennial import errors

# Every task's process imports this with its DAG file, before torch. OpenMP's threads that spin while they wait take the cores from
# everything else: a training on two busy cores then takes minutes instead of seconds, in an Airflow whose environment we do not make.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RETRIES = 2

# A repeat of these meets the same answer; everything else (a store or MLflow that is away, a killed worker) is tried again.
HOPELESS = (
    errors.StaleClaim, errors.EmptyBatch, errors.UnknownLabel, errors.ValidationFailed, errors.GuardError,
    errors.IncompleteManifest, errors.UntrustedBundle, errors.PromotionRefused, errors.RolloutError, errors.FleetError,
    errors.NotConfigured, errors.SourceError,
)  # fmt: skip


class _SharedPolicy(ExceptionRetryPolicy):  # type: ignore[misc]
    """One object for every task of a process: nothing changes it, and an operator copies its ``default_args`` deeply."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _SharedPolicy:
        return self


_POLICY = _SharedPolicy(rules=[RetryRule(exception=list(HOPELESS), action=RetryAction.FAIL)])


def default_args(owner: str = "perennial") -> dict[str, Any]:
    """``default_args`` of a generated DAG. Weights are absolute, so that only a critical training overtakes."""
    return {
        "owner": owner,
        "retries": RETRIES,
        "retry_delay": timedelta(seconds=2),
        "max_retry_delay": timedelta(seconds=15),
        "retry_exponential_backoff": 2.0,
        "retry_policy": _POLICY,
        "execution_timeout": timedelta(minutes=10),
        "weight_rule": "absolute",
    }

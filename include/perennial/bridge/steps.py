"""Task bodies: make the ports, call the flow. Everything that a body needs is imported inside it, so that parsing stays cheap."""

from __future__ import annotations

from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run
from perennial.bridge.operators import (
    PARKED,
    batch_of,
    nothing_left,
    rollout_of,
    settle_verdict,
    stopped_of,
    verdict_of,
)
from perennial.bridge.requests import outcome_of

# train_<agent>


def admit(agent: str) -> dict[str, Any]:
    """Make the agent's waiting rows ready: record checks and redaction."""
    from perennial.flows import train

    return train.admit(task_ports(admit=True), agent)


def validate() -> dict[str, Any]:
    """Hold the batch against its expectations."""
    from perennial.flows import train

    return train.validate(task_ports(), batch_of(get_current_context()))


def redact() -> dict[str, Any]:
    """Look once more for personal data, which must not be there."""
    from perennial.flows import train

    return train.redact(task_ports(), batch_of(get_current_context()))


def select() -> list[str]:
    """Choose rows and freeze the holdout; the tasks to train."""
    from perennial.errors import EmptyBatch
    from perennial.flows import train

    context = get_current_context()
    try:
        return train.select(task_ports(), batch_of(context))
    except EmptyBatch as error:
        raise nothing_left(context, error) from error


def train(task_name: str) -> dict[str, Any]:
    """Train one task of the agent."""
    from perennial.flows import train as flow

    return flow.train(task_ports(), batch_of(get_current_context()), task_name)


def evaluate() -> dict[str, Any]:
    """Let champion and candidate answer the same frozen rows."""
    from perennial.flows import train

    return train.evaluate(task_ports(), batch_of(get_current_context()))


def settle() -> dict[str, Any]:
    """Close the job in every case: mark the rows trained or give them back, and note in one line what happened."""
    from perennial.flows import train

    context = get_current_context()
    ti = context["ti"]
    released = ti.xcom_pull(task_ids="register") is not None
    action, approved, stopped = None, None, None
    if not released:
        action = (verdict_of(context) or {}).get("action")
        approved = (ti.xcom_pull(task_ids="approve") or {}).get("approved") if action == "approve" else None
        stopped = stopped_of(context) if action is None else None
    outcome = outcome_of(released=released, action=action, approved=approved, stopped=stopped)
    settled = train.settle(task_ports(), batch_of(context), outcome)
    note_run(context, settled["note"])
    return settled


# rollout_<agent>


def verify(agent: str) -> dict[str, Any]:
    """Take the newest released version, check its signature, freeze its plan; or carry out the form's decision instead."""
    from perennial.flows import rollout

    context = get_current_context()
    decide_if_asked(agent, context)
    ref = rollout.verify(task_ports(), agent, str(context["dag_run"].run_id))
    if ref is None:
        note_run(context, f"{agent}: no released version waits for traffic")
        raise AirflowSkipException("no released version waits for traffic")
    return ref


def decide_if_asked(agent: str, context: Any) -> None:
    """Carry out the decision of a person who filled the run's form, and end the run: the triggering user is the actor."""
    from perennial.domain.words import RolloutDecision

    form = context["params"]
    decision = RolloutDecision(form.get("decision") or RolloutDecision.NONE)
    if decision is RolloutDecision.NONE:
        return
    from perennial.flows.decide import decide, named
    from perennial.guard.said import said

    ports = task_ports()
    done = decide(
        ports, agent, decision, actor=str(context["dag_run"].triggering_user_name or ""),
        reason=said(str(form.get("reason") or "")), version=named(ports, agent, str(form.get("version") or "")),
    )  # fmt: skip
    note_run(context, done["note"])
    raise AirflowSkipException(done["note"])


def shadow() -> dict[str, Any]:
    """Let the candidate answer recorded requests before it meets traffic."""
    from perennial.flows import rollout

    verdict = rollout.shadow(task_ports(), rollout_of(get_current_context()))
    if verdict.get("state") is not None:  # reverted or superseded meanwhile
        return settle_verdict({**verdict, "action": verdict["state"]})
    if verdict["action"] == "hold":  # nothing could be replayed: the canary is where it must show itself
        return verdict
    return settle_verdict(verdict)


def full() -> dict[str, Any]:
    """Make the candidate the champion."""
    from perennial.flows import rollout

    context = get_current_context()
    result = rollout.full(task_ports(), rollout_of(context))
    note_run(context, result["note"])
    if result.get("action") == PARKED:
        raise AirflowSkipException(result["note"])
    return result


def revert() -> dict[str, Any]:
    """Take a candidate out of traffic that did not get through; skipped when it did. Runs whatever happened before."""
    from perennial.domain.words import RolloutState
    from perennial.flows import rollout

    ports, context = task_ports(), get_current_context()
    ref = rollout_of(context)
    row = ports.rollouts.get(ref["rollout_id"])
    if row.state in {RolloutState.BAKING, RolloutState.DONE}:
        raise AirflowSkipException(f"{row.agent} {row.version} serves: nothing to revert")
    if row.parked is not None:
        note_run(context, f"{row.agent} {row.version} stays at {row.weight:.0%} of the keys: {row.reason}")
        raise AirflowSkipException(row.reason)
    if row.state is RolloutState.SUPERSEDED:
        result = {"version": row.version, "note": f"{row.agent} {row.version} superseded: {row.reason}"}
    else:
        known = row.state is RolloutState.REVERTED and row.reason
        result = rollout.revert(ports, ref, row.reason if known else "a step of the rollout failed or was stopped")
    note_run(context, result["note"])
    return result

"""Operators that are more than a call of a flow: they skip, wait for a person, defer, or carry links."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from perennial.bridge.links import GatewayLink, ModelRunLink, ModelVersionLink
from perennial.bridge.notes import note_run
from perennial.bridge.requests import request_of
from perennial.bridge.triggers import CanaryTrigger
from perennial.domain.job import BatchRef

APPROVAL_WAIT = timedelta(hours=24)
AFTER_APPROVAL = timedelta(hours=1)  # for what comes after the answer
GATE = "gate"
STOPPED = "stopped"
PARKED = "parked"  # the word of flows.rollout
FAST_LANE, FAST_LANE_CRITICAL = FAST_LANES = ("fast_lane", "fast_lane_critical")
# what a fast lane does in one task
_STEPS = ("validate", "redact", "select", "train", "train_critical", "evaluate", GATE)
_RESULT = "return_value"
_LOOK_SECONDS = 0.5


def batch_of(context: Any) -> BatchRef:
    """The claim of this run. Pulled rather than passed, so that the graph shows order and not who reads whose id."""
    return BatchRef.from_dict(context["ti"].xcom_pull(task_ids="claim"))


def verdict_of(context: Any) -> dict[str, Any] | None:
    """What the gate said of this run's candidate, on whichever lane; None when it was not asked."""
    return next((said for name in (GATE, *FAST_LANES) if (said := context["ti"].xcom_pull(task_ids=name))), None)


def rollout_of(context: Any) -> dict[str, Any]:
    """The rollout that this run's ``verify`` opened."""
    return dict(context["ti"].xcom_pull(task_ids="verify"))


class _SkippingOperator(BaseOperator, SkipMixin):  # type: ignore[misc]
    """Says its result, then skips some of the tasks below it."""

    inherits_from_skipmixin = True

    def finish(self, context: Any, result: dict[str, Any], skip: Sequence[str]) -> dict[str, Any]:
        """Return the result; with anything to skip, push it first, since skipping ends the task by an exception."""
        if not skip:
            return result
        context["ti"].xcom_push(key=_RESULT, value=result)
        self.skip(ti=context["ti"], tasks=[context["task"].dag.get_task(name) for name in skip])
        return result


class ClaimOperator(_SkippingOperator):
    """Claims rows for this run; skips the whole run when there is nothing to do.

    An urgent claim goes through a fast lane, any other through the steps. One that holds a critical correction (priority 3)
    goes through ``fast_lane_critical`` or ``train_critical``, whose weight overtakes the waiting trainings of other agents in the
    pool. Airflow fixes a task's weight when its run is made, before anyone knows what will be claimed, hence two tasks each.
    """

    def __init__(self, *, agent: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.agent = agent

    def execute(self, context: Any) -> dict[str, Any]:
        """The batch reference for all tasks below."""
        from perennial.bridge.hooks import task_ports
        from perennial.flows import train

        ports = task_ports()
        request = request_of(self.agent, context)
        ref = train.claim(ports, request)
        if ref is None:
            job = ports.buffer.job_of_run(request.agent, request.run_id)
            reason = f"{self.agent}: {job.note if job is not None and job.note else 'nothing is due any more'}"
            note_run(context, reason)
            raise AirflowSkipException(reason)
        critical = any(row.priority >= 3 for row in ports.buffer.claimed_rows(ref.job_id, ref.attempt))
        if ref.urgent:
            return self.finish(context, ref.as_dict(), [*_STEPS, FAST_LANE if critical else FAST_LANE_CRITICAL])
        return self.finish(context, ref.as_dict(), [*FAST_LANES, "train" if critical else "train_critical"])


class _JudgingOperator(_SkippingOperator):
    """Lets only a candidate go on that the gates pass, and to ``approve`` what needs a person."""

    def follow(self, context: Any, verdict: dict[str, Any]) -> dict[str, Any]:
        """Say the verdict with its page, and skip what it rules out."""
        self.log.info("%s", verdict["text"])
        skip = {"pass": ["approve"], "approve": []}.get(verdict["action"], ["approve", "register"])
        return self.finish(context, verdict, skip)


class GateOperator(_JudgingOperator):
    """Asks the gates."""

    def execute(self, context: Any) -> dict[str, Any]:
        """The verdict with its page."""
        from perennial.bridge.hooks import task_ports
        from perennial.flows import train

        return self.follow(context, train.gate(task_ports(), batch_of(context)))


class FastLaneOperator(_JudgingOperator):
    """Everything from validate to gate in this one task, for a correction that somebody waits for."""

    def execute(self, context: Any) -> dict[str, Any]:
        """The verdict with its page, and the seconds of each step."""
        from perennial.bridge.hooks import task_ports
        from perennial.errors import EmptyBatch
        from perennial.flows import train

        try:
            verdict = train.fast_lane(task_ports(), batch_of(context))
        except EmptyBatch as error:
            raise nothing_left(context, error) from error
        return self.follow(context, verdict)


def nothing_left(context: Any, error: Exception) -> AirflowSkipException:
    """Note for ``settle`` that the batch had nothing to train, which is no failure."""
    context["ti"].xcom_push(key=STOPPED, value="cancelled")
    return AirflowSkipException(str(error))


def stopped_of(context: Any) -> str | None:
    """The word that ``nothing_left`` noted, if it did."""
    pull = context["ti"].xcom_pull
    return next((word for name in ("select", *FAST_LANES) if (word := pull(task_ids=name, key=STOPPED))), None)


class ApproveOperator(ApprovalOperator):  # type: ignore[misc]
    """Waits for a person in Airflow's required actions, with the evidence in the form.

    Question and evidence come from our own tables when the task runs, not from XCom, which whoever edits a run can write.
    The answer is written into our own table with the name of who gave it; ``register`` reads that table alone, so marking
    this task as successful promotes nothing. An approval that does not count brings the question back for somebody else. No
    answer in time is a refusal, also when somebody sets another default.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("response_timeout", APPROVAL_WAIT)
        super().__init__(defaults=self.REJECT, **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        """Hold the claim for as long as a person may take, then park: no process and no trigger waits.

        Nobody is asked twice for the same bytes of one attempt. Airflow may run this again after the answer: when the
        answer is quicker than the executor's report of the parked process, the scheduler takes the resumed task for a
        killed one.
        """
        from perennial.bridge.hooks import task_ports
        from perennial.flows import train

        ref, ports = batch_of(context), task_ports()
        asked = train.question(ports, ref, str(context["dag_run"].run_id))
        if asked["granted"]:
            self.log.info("%s approved this already", asked["actor"])
            return {"approved": True, "actor": asked["actor"]}
        self.subject, self.body = asked["subject"], asked["body"]
        ports.buffer.renew(ref.job_id, ref.attempt, (self.response_timeout + AFTER_APPROVAL).total_seconds())
        return dict(super().execute(context))  # never returns: it raises what parks the task

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Record the decision. Asks again while more people must approve; a refusal skips what comes next."""
        from perennial.bridge.hooks import task_ports
        from perennial.flows import train

        answer = HITLOperator.execute_complete(self, context=context, event=event)
        responder = answer["responded_by_user"]
        approved = responder is not None and list(answer["chosen_options"]) == [self.APPROVE]
        actor = str(responder["name"] or responder["id"]) if responder else "nobody"
        comment = "" if responder else f"no answer within {self.response_timeout}"
        decision = train.record_decision(
            task_ports(), batch_of(context), approved, actor, comment, attributable=not everybody_is_admin(),
            run_id=str(context["dag_run"].run_id),
        )  # fmt: skip
        if approved and not decision["approved"]:
            self.log.warning("the approval by %s is not enough: %s", actor, decision["why"])
            note_run(context, f"still waits for an approval: {decision['why']}")
            if not decision["again"]:
                raise AirflowFailException(
                    f"{decision['why']}; turn [core] simple_auth_manager_all_admins off, then clear this run from `claim` on"
                )
            return self.execute(context)
        context["ti"].xcom_push(key=_RESULT, value=decision)
        if not approved:
            self.log.info("refused by %s", actor)
            self.skip(ti=context["ti"], tasks=[context["task"].dag.get_task("register")])
        return decision


def everybody_is_admin() -> bool:
    """Whether Airflow lets everybody in as the same administrator, so that no answer has an author."""
    from airflow.sdk.configuration import conf

    simple = "SimpleAuthManager" in conf.get("core", "auth_manager", fallback="SimpleAuthManager")
    return simple and conf.getboolean("core", "simple_auth_manager_all_admins", fallback=False)


class RegisterOperator(BaseOperator):  # type: ignore[misc]
    """Publishes the candidate, if a live verdict (and approval) covers its bytes; its outlet starts the rollout."""

    operator_extra_links = (ModelRunLink(), ModelVersionLink())

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.links: dict[str, str] = {}

    def execute(self, context: Any) -> dict[str, Any]:
        """Version, digest and links."""
        from perennial.bridge.hooks import task_ports
        from perennial.flows import train

        released = train.register(task_ports(), batch_of(context))
        self.links = released
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"version": released["version"], "digest": released["digest"]}
        return released


class CanaryOperator(BaseOperator):  # type: ignore[misc]
    """One step of a rollout: gives the candidate its share, then waits for the verdict, in the triggerer when it takes longer.

    The share is set before anything waits, and setting it again changes nothing, so a killed task can run again.

    :param index: step of the plan, from 0
    :param patience: seconds that the task looks by itself before it defers; a deferral and its resumption cost about three
    :param longest: how long the step may wait in all
    """

    operator_extra_links = (GatewayLink(),)

    def __init__(self, *, index: int, patience: float, longest: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index, self.patience, self.longest = index, patience, longest

    def execute(self, context: Any) -> dict[str, Any]:
        """Begin the step, and end it if the verdict comes soon."""
        from perennial.bridge.hooks import task_ports
        from perennial.flows import rollout

        ref, ports = rollout_of(context), task_ports()
        verdict = rollout.begin_step(ports, ref, self.index)
        self.log.info("%s: %s", verdict["action"], verdict["reason"])
        until = time.monotonic() + self.patience
        while verdict["action"] == "hold" and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
            verdict = rollout.look(ports, ref, self.index)
        if verdict["action"] == "hold":
            self.defer(
                trigger=CanaryTrigger(ref=ref, index=self.index), method_name="execute_complete", timeout=self.longest
            )
        return self.execute_complete(context, verdict)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """End the step with its verdict."""
        self.log.info("%s: %s", event["action"], event["reason"])
        return settle_verdict(event)


def settle_verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    """Go on, or end this run: a newer candidate skips the rest, and so does a rollout that waits for a person or for the end of
    a freeze window, which needs no running task; anything else but a promotion fails."""
    action = verdict["action"]
    if action == "promote":
        return verdict
    if action in {"superseded", PARKED}:
        raise AirflowSkipException(f"{action}: {verdict['reason']}")
    raise AirflowFailException(f"{action}: {verdict['reason']}")

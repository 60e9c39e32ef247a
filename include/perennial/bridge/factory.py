"""Makes the DAGs of every agent of the fleet: a new file in the fleet folder is a new pair of DAGs, with no other edit.

Runs in the dag processor at every parse, so it reads the fleet files and nothing else: no database, no library that trains.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, TriggerRule, get_parsing_context, task

from perennial.bridge import steps
from perennial.bridge.assets import candidate_asset, due_asset
from perennial.bridge.operators import (
    FAST_LANE,
    FAST_LANE_CRITICAL,
    GATE,
    ApproveOperator,
    CanaryOperator,
    ClaimOperator,
    FastLaneOperator,
    GateOperator,
    RegisterOperator,
)
from perennial.bridge.pods import pod_override
from perennial.bridge.policy import default_args
from perennial.bridge.pools import CPU
from perennial.domain.words import Mode, Reason, RolloutDecision
from perennial.fleet import loader
from perennial.fleet.agent import Agent
from perennial.settings import Settings, load_settings

CRITICAL_WEIGHT = 1000
URGENT_WEIGHT = 100
SHORT_STEP_SECONDS = 10.0
TRAIN_MINUTES = 50.0  # below the lease of a claim, which is an hour
_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"

TRAIN_DOC = """
### {title}
{description}

Starts by itself when **{agent}** is due: enough new rows, a correction of priority 2 or 3, drift, or a request.
**Trigger** it here to train now with whatever waits.

| task | what it does |
|---|---|
| admit, claim | makes waiting rows ready (checked, redacted) and claims the best of them; ends the run at once when nothing is to do |
| validate, redact, select | batch expectations, a second look for personal data, frozen holdout and replay |
| train, train_critical | per task of the agent, in pool `{pool}`; with a critical correction the second, which overtakes the queue |
| evaluate, gate | champion and candidate on the same rows; the report is in the gate's log and XCom |
| fast_lane, fast_lane_critical | instead of all that from validate on when somebody corrected the model: the same in one task |
| approve | for a major version or too little evidence: people answer in *Required actions*, and their names are kept |
| register | signs, publishes to MLflow, and starts `rollout_{agent}` |
| settle | always runs: marks the rows trained or gives them back, and writes the run's note |

Owner: {owner}. Tasks: {tasks}. Trainer: `{trainer}`.
"""

ROLLOUT_DOC = """
### {title}
Brings the newest released version of **{agent}** to its users: verified, replayed in shadow, then {shares} of the keys, then all.

A step waits for at least {samples} answers of the candidate. Errors, latency and agreement with outcomes decide; no data is
never a pass. A bad verdict fails the step and `revert` puts the champion back, as does marking the run failed.
A newer candidate supersedes this one. After 100 % `rollout_watch` keeps watching.

With too little traffic to tell, a step reverts, asks a person, or decides on the offline evidence, as the agent says. A rollout that
waits for a person or for the end of a freeze window has no running task: it keeps its share, and `rollout_watch` looks after it.
**Trigger** this DAG with a `decision`, a `reason` and the `version` that you mean to abort the open rollout or to promote it now.
"""


def fleet_dags(build: Callable[[Agent, Settings], DAG]) -> dict[str, DAG]:
    """One DAG per agent that loads, by id. A broken fleet file costs its own agent alone; ``fleet_check`` names it.

    A task's process parses for one DAG alone: it builds that one, and where the file is named after the agent reads no other.
    """
    settings, wanted = load_settings(), get_parsing_context().dag_id  # the settings are read once, not once per agent
    if wanted is None:
        mine = loader.load(settings.fleet_folder).agents
    else:
        one = loader.find(settings.fleet_folder, wanted.partition("_")[2])
        mine = () if one is None else (one.agent,)
    dags = [build(agent, settings) for agent in mine]
    return {dag.dag_id: dag for dag in dags}


def train_dag(agent: Agent, settings: Settings | None = None) -> DAG:
    """``train_<agent>``: from claimed rows to a registered version."""
    place = _place(agent, settings or load_settings())
    with DAG(
        dag_id=f"train_{agent.name}",
        description=f"Retrains {agent.name} from its buffer",
        schedule=[due_asset(agent.name)],
        max_active_runs=1,
        catchup=False,
        is_paused_upon_creation=False,
        default_args=default_args(agent.owner),
        tags=_tags(agent, "train"),
        doc_md=_train_doc(agent),
    ) as dag:
        admitted = _step(steps.admit, pool=CPU)(agent.name)
        claimed = ClaimOperator(task_id="claim", agent=agent.name)
        selected = _step(steps.select)()
        one_came = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
        trained = _training(place, "train", 1).expand(task_name=selected)
        critical = _training(place, "train_critical", CRITICAL_WEIGHT).expand(task_name=selected)
        evaluated = _step(steps.evaluate, pool=CPU, minutes=30, trigger_rule=one_came)()
        gate = GateOperator(task_id=GATE)
        lanes = [
            _fast_lane(agent, place, FAST_LANE, URGENT_WEIGHT),
            _fast_lane(agent, place, FAST_LANE_CRITICAL, CRITICAL_WEIGHT),
        ]
        approve = ApproveOperator(
            task_id="approve", subject=f"Release a new version of {agent.name}?", trigger_rule=one_came
        )
        register = RegisterOperator(task_id="register", outlets=[candidate_asset(agent.name)], trigger_rule=one_came)
        settle = _step(steps.settle, retries=5)()
        # two looks at the same claimed rows that need not wait for each other: half a second less for a correction
        checks = [_step(steps.validate, pool=CPU)(), _step(steps.redact, pool=CPU)()]
        admitted >> claimed >> checks >> selected
        [trained, critical] >> evaluated >> gate
        claimed >> lanes
        for judged in (gate, *lanes):
            judged >> [approve, register]
        approve >> register >> settle
        settle.as_teardown(setups=claimed)
    return _with_form(dag, _train_params())


def rollout_dag(agent: Agent, _: Settings | None = None) -> DAG:
    """``rollout_<agent>``: from a registered version to the champion. Two may run: the newer supersedes the older."""
    shares = [step for step in agent.rollout.steps if step < 1.0]
    longest = timedelta(seconds=agent.rollout.max_hold_seconds + 300)
    # a short step ends within the task; a long one must not hold a worker
    patience = agent.rollout.step_seconds + 2 if agent.rollout.step_seconds <= SHORT_STEP_SECONDS else 0.0
    with DAG(
        dag_id=f"rollout_{agent.name}",
        description=f"Brings new versions of {agent.name} to production, step by step",
        schedule=[candidate_asset(agent.name)],
        max_active_runs=4,
        catchup=False,
        is_paused_upon_creation=False,
        default_args=default_args(agent.owner),
        tags=_tags(agent, "rollout"),
        doc_md=ROLLOUT_DOC.format(
            title=f"Roll out {agent.name}", agent=agent.name, samples=agent.rollout.min_samples,
            shares=", ".join(f"{share:.0%}" for share in shares) or "no share",
        ),
    ) as dag:  # fmt: skip
        verified = _step(steps.verify)(agent.name)
        before = _step(steps.shadow, pool=CPU)()
        verified >> before
        for index in range(len(shares)):
            step = CanaryOperator(
                task_id=f"canary_{index + 1}",
                index=index,
                patience=patience,
                longest=longest,
                execution_timeout=longest,
            )
            before >> step
            before = step
        promoted = _step(steps.full)()
        revert = _step(steps.revert, retries=5)()
        before >> promoted >> revert
        revert.as_teardown(setups=verified)
    return _with_form(dag, _rollout_params())


def _with_form(dag: DAG, form: dict[str, Param]) -> DAG:
    """The DAG with the form of its runs. Given last: an operator copies the params that its DAG has when it is made, and Airflow then
    checks and stores each copy with each task, which took six sevenths of what serializing a DAG costs. A run's task reads the DAG's."""
    dag.params = form
    return dag


def _step(function: Callable[..., Any], *, minutes: float = 10, **options: Any) -> Any:
    """A plain function as a task of its own name. Results are one small XCom, never one per key."""
    return task(
        task_id=function.__name__, execution_timeout=timedelta(minutes=minutes), multiple_outputs=False, **options
    )(function)


def _training(place: dict[str, Any], name: str, weight: int) -> Any:
    return task(
        task_id=name, **place, priority_weight=weight, execution_timeout=timedelta(minutes=TRAIN_MINUTES),
        multiple_outputs=False, map_index_template="{{ task.op_kwargs['task_name'] }}",
    )(steps.train)  # fmt: skip


def _fast_lane(agent: Agent, place: dict[str, Any], name: str, weight: int) -> Any:
    return FastLaneOperator(
        task_id=name, **place, priority_weight=weight, execution_timeout=timedelta(minutes=TRAIN_MINUTES)
    )


def _place(agent: Agent, settings: Settings) -> dict[str, Any]:
    """Where an agent trains: its pool, its queue when it or the deployment names one, and the pod that the deployment asks for.

    An executor that knows no queues, or no pods, ignores them.
    """
    place: dict[str, Any] = {"pool": agent.pool}
    queue = agent.queue or settings.train_queue
    if queue:
        place["queue"] = queue
    if settings.train_pod_override is not None:
        return {**place, "executor_config": {"pod_override": pod_override(settings.train_pod_override)}}
    return place


def _train_params() -> dict[str, Param]:
    return {
        "mode": Param("auto", enum=[word.value for word in Mode], description="online: heads only; batch: encoder too"),
        "reason": Param("request", enum=[word.value for word in Reason], description="Why, for the job's record"),
        "why": Param(
            "",
            type="string",
            maxLength=300,
            description="Your reason in a sentence; a batch candidate that is no better needs one",
        ),
        "job_id": Param(
            None, type=["null", "string"], pattern=_UUID, description="UUID of the job, when the caller brings one"
        ),
        "force": Param(False, type="boolean", description="Train although nothing says that it is due"),
        "overrides": Param({}, type="object", description="Settings of this one training, kept in the job's record"),
    }


def _rollout_params() -> dict[str, Param]:
    words = [word.value for word in RolloutDecision]
    return {
        "decision": Param(
            "none", enum=words, description="none: roll out what waits; else what to do with the open rollout, now"
        ),
        "reason": Param("", type="string", description="Why; a decision needs one, and it is audited with your name"),
        "version": Param(
            "",
            type="string",
            description="The version that you mean; a decision needs it. Another one by now: nothing happens",
        ),
    }


def _tags(agent: Agent, kind: str) -> list[str]:
    return sorted({"perennial", kind, f"agent:{agent.name}", *agent.tags})


def _train_doc(agent: Agent) -> str:
    return TRAIN_DOC.format(
        title=f"Train {agent.name}", description=agent.description, agent=agent.name, pool=agent.pool, owner=agent.owner,
        tasks=", ".join(one.name for one in agent.tasks), trainer=agent.trainer.key,
    )  # fmt: skip

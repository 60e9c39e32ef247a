"""What the generated DAGs do in a real Airflow: every way in which a training or a rollout can end."""

from __future__ import annotations

import time
from urllib.error import HTTPError

import pytest

from tests.integration.bridge.airflow_stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]


def _last(stack: Stack, dag: str) -> str:
    return str(stack.runs(dag)[-1]["dag_run_id"])


def _train_run(stack: Stack, agent: str, since: float) -> str:
    return str(stack.wait_step(agent, "claim", since)["run"])


@pytest.mark.req("D5", "D7", "D11", "J72", "J77")
def test_an_event_goes_all_the_way_to_everything(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("alpha")
    run = _train_run(stack, "alpha", since)
    assert stack.finished("train_alpha", run) == "success"
    states = stack.states("train_alpha", run)
    assert {task for task, state in states.items() if state == "skipped"} == {
        "train_critical", "approve", "fast_lane", "fast_lane_critical",
    }  # fmt: skip
    assert states["train[0]"] == states["train[1]"] == states["register"] == states["settle"] == "success"
    assert stack.run("train_alpha", run)["note"] == "alpha: registered"
    steps = {line["step"]: line for line in stack.journal("alpha", since)}
    assert steps["claim"]["reason"] == "threshold"
    assert steps["admit"]["may_admit"] is True
    assert steps["claim"]["may_admit"] is steps["validate"]["may_admit"] is False
    links = stack.call("GET", f"/api/v2/dags/train_alpha/dagRuns/{run}/taskInstances/register/links")["extra_links"]
    assert links == {"MLflow run": "http://mlflow/run", "MLflow version": "http://mlflow/version"}

    rollout = str(stack.wait_step("alpha", "verify", since)["run"])
    assert stack.finished("rollout_alpha", rollout) == "success"
    assert stack.states("rollout_alpha", rollout) == {
        "verify": "success", "shadow": "success", "canary_1": "success", "canary_2": "success", "full": "success",
        "revert": "skipped",
    }  # fmt: skip
    assert stack.run("rollout_alpha", rollout)["note"] == "alpha 1.0.1 serves everything"
    page = stack.home / "perennial" / "reports" / "alpha.md"  # the shipped example of ModelPromotedSensor
    stack.wait(page.exists, 60, "the promotion's page is written")
    assert "# alpha serves 1.0.1" in page.read_text()


@pytest.mark.req("J33")
def test_a_correction_takes_the_fast_lane(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("beta", "correction", 2)
    run = _train_run(stack, "beta", since)
    assert stack.finished("train_beta", run) == "success"
    states = stack.states("train_beta", run)
    done = {task for task, state in states.items() if state == "success"}
    assert done == {"admit", "claim", "fast_lane", "register", "settle"}
    assert set(states.values()) == {"success", "skipped"}
    lines = [line for line in stack.journal("beta", since) if line["step"] not in {"verify", "shadow"}]
    work = [line for line in lines if line["step"] in {"fast_lane", "validate", "redact", "select", "evaluate", "gate"}]
    assert [line["step"] for line in work] == ["fast_lane", "validate", "redact", "select", "evaluate", "gate"]
    assert len({line["pid"] for line in work}) == 1
    assert not any(line.get("may_admit") for line in work)
    assert stack.run("train_beta", run)["note"] == "beta: registered"


@pytest.mark.req("J49")
def test_the_fast_lane_ends_in_every_way_that_the_steps_do(airflow_stack: Stack) -> None:
    stack = airflow_stack
    for said, outcome, state in (
        ({"gate": "hold"}, "held", "success"),
        ({"empty": True}, "cancelled", "success"),
        ({"fail": "validate"}, "failed", "failed"),
        ({"kill": "train"}, "registered", "success"),
    ):
        since = stack.due("gamma", "correction", 2, **said)
        run = _train_run(stack, "gamma", since)
        assert stack.finished("train_gamma", run, 120) == state, said
        assert stack.wait_step("gamma", "settle", since)["outcome"] == outcome
        assert stack.states("train_gamma", run)["gate"] == "skipped"
        steps = [line["step"] for line in stack.journal("gamma", since)]
        assert steps.count("fast_lane") == (2 if "kill" in said else 1)
        assert steps.count("register") == (1 if outcome == "registered" else 0)


@pytest.mark.req("J72", "D5")
def test_a_lost_notification_costs_seconds(airflow_stack: Stack) -> None:
    stack = airflow_stack
    stack.notify = lambda agent: None  # type: ignore[method-assign]
    try:
        since = stack.due("beta", reason="threshold", gate="hold")
    finally:
        del stack.notify
    line = stack.wait_step("beta", "claim", since, 30)
    assert line["reason"] == "threshold"
    assert stack.finished("train_beta", line["run"]) == "success"


@pytest.mark.req("J33", "J76")
def test_ten_corrections_of_one_moment_leave_none_waiting(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("gamma", gate="hold")
    for _ in range(9):
        stack.notify("gamma")
    stack.wait_step("gamma", "settle", since)
    time.sleep(3)
    claims = [line for line in stack.journal("gamma", since) if line["step"] == "claim"]
    assert len(claims) <= 2  # the second, if any, found nothing
    assert not (stack.stub / "due" / "gamma.json").exists()


@pytest.mark.req("J49", "D7")
def test_a_held_candidate_is_not_registered_and_its_rows_go_back(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("alpha", gate="hold")
    run = _train_run(stack, "alpha", since)
    assert stack.finished("train_alpha", run) == "success"
    states = stack.states("train_alpha", run)
    assert states["approve"] == states["register"] == "skipped"
    assert stack.wait_step("alpha", "settle", since)["outcome"] == "held"
    assert stack.run("train_alpha", run)["note"] == "alpha: held"


@pytest.mark.req("D10", "J75")
def test_a_failed_check_fails_the_run_at_once_and_gives_the_rows_back(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("beta", fail="validate")
    run = _train_run(stack, "beta", since)
    assert stack.finished("train_beta", run) == "failed"
    assert stack.wait_step("beta", "settle", since)["outcome"] == "failed"
    assert [line["step"] for line in stack.journal("beta", since)].count("validate") == 1  # hopeless: not tried again
    assert stack.states("train_beta", run)["register"] == "upstream_failed"


@pytest.mark.req("D10")
def test_a_task_killed_in_train_runs_again_and_registers_once(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("gamma", kill="train", tasks=["topic"])
    run = _train_run(stack, "gamma", since)
    assert stack.finished("train_gamma", run, 120) == "success"
    steps = [line["step"] for line in stack.journal("gamma", since)]
    assert steps.count("train") == 2
    assert steps.count("register") == 1


def test_a_batch_with_nothing_left_is_cancelled_not_failed(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.due("alpha", empty=True)
    run = _train_run(stack, "alpha", since)
    assert stack.finished("train_alpha", run) == "success"
    assert stack.wait_step("alpha", "settle", since)["outcome"] == "cancelled"


@pytest.mark.req("D6", "J77", "J106")
def test_a_run_by_request_carries_its_form(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = time.time()
    conf = {"mode": "batch", "reason": "drift", "force": True, "overrides": {"epochs": 2}}
    run = stack.trigger("train_beta", conf, user="editor")
    assert stack.finished("train_beta", run) == "success"  # nothing was due: skipped at claim
    line = stack.wait_step("beta", "claim", since)
    assert {key: line[key] for key in ("mode", "reason", "force", "by", "overrides")} == {**conf, "by": "editor"}
    assert stack.states("train_beta", run)["settle"] == "skipped"
    assert stack.run("train_beta", run)["note"] == "beta: nothing is due any more"
    with pytest.raises(HTTPError) as refused:
        stack.trigger("train_beta", {"mode": "deep"})
    assert refused.value.code == 400


@pytest.mark.req("D7")
def test_a_harvest_drains_each_source_and_says_what_came(airflow_stack: Stack) -> None:
    stack = airflow_stack
    stack.call("PATCH", "/api/v2/dags/harvest", {"is_paused": False})
    try:
        for name, lines in (("east", "a\nb\nc"), ("west", "d")):
            (stack.stub / "inbox" / name).write_text(lines)
        stack.wait(lambda: not list((stack.stub / "inbox").iterdir()), 60, "the sources are drained")
        run = next(
            run["dag_run_id"] for run in stack.runs("harvest") if len(stack.states("harvest", run["dag_run_id"])) == 4
        )
        assert stack.finished("harvest", run) == "success"
        assert stack.run("harvest", run)["note"] == "east: 3 accepted; west: 1 accepted"
        idle = stack.trigger("harvest")
        assert stack.finished("harvest", idle) == "success"
        assert stack.states("harvest", idle) == {"sources": "success", "drain": "skipped", "guard_and_relay": "skipped"}
        assert {line["may_admit"] for line in stack.journal() if line["step"] == "drain"} == {False}
        assert {line["may_admit"] for line in stack.journal() if line["step"] == "admit_waiting"} == {True}
        assert {line["may_admit"] for line in stack.journal() if line["step"] == "seal"} == {False}
    finally:
        stack.call("PATCH", "/api/v2/dags/harvest", {"is_paused": True})


def _wait_for_person(stack: Stack, agent: str, **said: object) -> tuple[str, float]:
    for left in ("approved", "people"):
        (stack.stub / f"{agent}.{left}").unlink(missing_ok=True)
    since = stack.due(agent, gate="approve", tasks=["topic"], **said)
    run = _train_run(stack, agent, since)
    stack.wait(lambda: stack.states(f"train_{agent}", run).get("approve") == "awaiting_input", 60, "approve waits")
    time.sleep(
        4
    )  # a person reads; an answer within the executor's report of the parked process makes Airflow ask again
    return run, since


@pytest.mark.req("D11")
def test_a_person_approves_and_is_named(airflow_stack: Stack) -> None:
    stack = airflow_stack
    run, since = _wait_for_person(stack, "alpha")
    path = f"/api/v2/dags/train_alpha/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    asked = stack.call("GET", path)
    assert "# Gate report" in asked["body"]
    assert asked["options"] == ["Approve", "Reject"]
    stack.call("PATCH", path, {"chosen_options": ["Approve"], "params_input": {}}, user="editor")
    assert stack.finished("train_alpha", run) == "success"
    decision = stack.wait_step("alpha", "decision", since)
    assert (decision["approved"], decision["actor"]) == (True, "editor")
    assert stack.wait_step("alpha", "settle", since)["outcome"] == "registered"


@pytest.mark.req("D11")
def test_a_refusal_registers_nothing(airflow_stack: Stack) -> None:
    stack = airflow_stack
    (stack.stub / "beta.approved").unlink(missing_ok=True)
    run, since = _wait_for_person(stack, "beta")
    path = f"/api/v2/dags/train_beta/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    stack.call("PATCH", path, {"chosen_options": ["Reject"], "params_input": {}}, user="editor")
    assert stack.finished("train_beta", run) == "success"
    assert stack.wait_step("beta", "settle", since)["outcome"] == "rejected"
    assert stack.states("train_beta", run)["register"] == "skipped"


@pytest.mark.req("D11")
def test_marking_the_approval_as_done_promotes_nothing(airflow_stack: Stack) -> None:
    stack = airflow_stack
    (stack.stub / "gamma.approved").unlink(missing_ok=True)
    run, since = _wait_for_person(stack, "gamma")
    path = f"/api/v2/dags/train_gamma/dagRuns/{run}/taskInstances/approve"
    stack.call("PATCH", path, {"new_state": "success"}, user="editor")
    assert stack.finished("train_gamma", run) == "failed"
    assert stack.states("train_gamma", run)["register"] == "failed"
    assert stack.wait_step("gamma", "settle", since)["outcome"] == "failed"


@pytest.mark.req("K36", "K82")
def test_what_is_written_into_xcom_promotes_nothing(airflow_stack: Stack) -> None:
    stack = airflow_stack
    run, since = _wait_for_person(stack, "alpha")
    tasks = f"/api/v2/dags/train_alpha/dagRuns/{run}/taskInstances"
    forged = {"action": "pass", "text": "all is well"}
    stack.call("PATCH", f"{tasks}/gate/xcomEntries/return_value", {"value": forged}, user="editor")
    said = {"key": "return_value", "value": {"approved": True, "actor": "editor"}}
    stack.call("POST", f"{tasks}/approve/xcomEntries", said, user="editor")
    stack.call("PATCH", f"{tasks}/approve", {"new_state": "success"}, user="editor")
    assert stack.finished("train_alpha", run) == "failed"
    assert stack.states("train_alpha", run)["register"] == "failed"
    assert stack.wait_step("alpha", "settle", since)["outcome"] == "failed"
    assert not (stack.stub / "released" / "alpha").exists()


@pytest.mark.req("K36", "K82")
def test_a_viewer_is_refused_by_airflow(airflow_stack: Stack) -> None:
    stack = airflow_stack
    run, since = _wait_for_person(stack, "beta")
    task = f"/api/v2/dags/train_beta/dagRuns/{run}/taskInstances/approve"
    answer = {"chosen_options": ["Approve"], "params_input": {}}
    for method, path, body in (
        ("PATCH", f"{task}/-1/hitlDetails", answer),
        ("PATCH", task, {"new_state": "success"}),
        ("POST", f"{task}/xcomEntries", {"key": "return_value", "value": {"approved": True}}),
    ):
        with pytest.raises(HTTPError) as refused:
            stack.call(method, path, body, user="reader")
        assert refused.value.code == 403
    assert stack.states("train_beta", run)["approve"] == "awaiting_input"
    stack.call("PATCH", f"{task}/-1/hitlDetails", {**answer, "chosen_options": ["Reject"]}, user="editor")
    assert stack.finished("train_beta", run) == "success"
    assert stack.wait_step("beta", "settle", since)["outcome"] == "rejected"
    assert not (stack.stub / "released" / "beta").exists()


@pytest.mark.req("K36", "K82")
def test_the_question_comes_back_until_two_people_approved(airflow_stack: Stack) -> None:
    stack = airflow_stack
    run, since = _wait_for_person(stack, "gamma", two_people=True)
    path = f"/api/v2/dags/train_gamma/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    asked = stack.call("GET", path)
    assert asked["subject"] == "Release gamma 2.0.0 (major)?"
    assert "candidate `abababababababab`" in asked["body"]
    answer = {"chosen_options": ["Approve"], "params_input": {}}
    stack.call("PATCH", path, answer, user="editor")
    stack.wait_step("gamma", "decision", since)
    stack.wait(lambda: stack.states("train_gamma", run)["approve"] == "awaiting_input", 60, "approve asks again")
    again = stack.call("GET", path)
    assert (again["response_received"], again["body"]) == (False, asked["body"])
    assert "1 of 2 people approved" in stack.run("train_gamma", run)["note"]
    time.sleep(4)
    stack.call("PATCH", path, answer, user="second")
    assert stack.finished("train_gamma", run) == "success"
    people = [line["actor"] for line in stack.journal("gamma", since) if line["step"] == "decision"]
    assert people == ["editor", "second"]
    assert {line["run"] for line in stack.journal("gamma", since) if line["step"] in {"question", "decision"}} == {run}
    assert stack.wait_step("gamma", "settle", since)["outcome"] == "registered"


@pytest.mark.req("K36", "K82")
def test_a_deleted_run_registers_nothing(airflow_stack: Stack) -> None:
    stack = airflow_stack
    run, since = _wait_for_person(stack, "alpha")
    path = f"/api/v2/dags/train_alpha/dagRuns/{run}"
    stack.call("PATCH", path, {"state": "failed"})
    stack.wait_step("alpha", "settle", since)
    stack.finished("train_alpha", run)  # Airflow deletes no run that goes on
    stack.call("DELETE", path)
    with pytest.raises(HTTPError) as gone:  # and Airflow's record of the question went with it
        stack.call("GET", f"{path}/taskInstances/approve/-1/hitlDetails")
    assert gone.value.code == 404
    assert not [line for line in stack.journal("alpha", since) if line["step"] in {"decision", "register"}]
    assert not (stack.stub / "released" / "alpha").exists()


@pytest.mark.req("J34")
def test_a_critical_correction_overtakes_in_a_pool_of_one_slot(airflow_stack: Stack) -> None:
    stack = airflow_stack
    stack.call("PATCH", "/api/v2/pools/gpu", {"name": "gpu", "slots": 1, "include_deferred": False, "description": ""})
    try:
        said = {"gate": "hold", "tasks": ["topic"]}
        since = stack.due("alpha", "threshold", 0, wait="train", **said)
        stack.wait_step("alpha", "train_begin", since)
        stack.due("beta", "threshold", 0, **said)
        stack.wait(lambda: _train_state(stack, "beta", since, "train[0]") == "scheduled", 60, "beta queues")
        stack.due("gamma", "correction", 3, **said)
        stack.wait(lambda: _train_state(stack, "gamma", since, "fast_lane_critical") == "scheduled", 60, "gamma queues")
        (stack.stub / "alpha.go").touch()
        for agent in ("alpha", "beta", "gamma"):
            stack.wait_step(agent, "settle", since, 90)
        order = [line["agent"] for line in stack.journal(since=since) if line["step"] == "train_begin"]
        assert order == ["alpha", "gamma", "beta"]
        assert _train_state(stack, "gamma", since, "fast_lane") == "skipped"
        assert _train_state(stack, "gamma", since, "fast_lane_critical") == "success"
    finally:
        (stack.stub / "alpha.go").unlink(missing_ok=True)
        stack.call(
            "PATCH", "/api/v2/pools/gpu", {"name": "gpu", "slots": 2, "include_deferred": False, "description": ""}
        )


def _train_state(stack: Stack, agent: str, since: float, task: str) -> str | None:
    line = next((line for line in stack.journal(agent, since) if line["step"] == "claim"), None)
    return stack.states(f"train_{agent}", line["run"]).get(task) if line else None


@pytest.mark.req("J73")
def test_two_agents_train_side_by_side(airflow_stack: Stack) -> None:
    stack = airflow_stack
    said = {"gate": "hold", "tasks": ["topic"], "wait": "train"}
    since = stack.due("alpha", **said)
    stack.due("beta", **said)
    try:
        for agent in ("alpha", "beta"):  # neither ends before the other has begun
            stack.wait_step(agent, "train_begin", since, 90)
    finally:
        for agent in ("alpha", "beta"):
            (stack.stub / f"{agent}.go").touch()
    for agent in ("alpha", "beta"):
        stack.wait_step(agent, "settle", since, 90)
        (stack.stub / f"{agent}.go").unlink()
    begun, ended = (
        [stack.wait_step(agent, step, since)["at"] for agent in ("alpha", "beta")]
        for step in ("train_begin", "train_end")
    )
    assert max(begun) < min(ended)


@pytest.mark.req("J95")
def test_a_bad_verdict_reverts_and_the_run_shows_it(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.release("alpha", look="rollback")
    rollout = str(stack.wait_step("alpha", "verify", since)["run"])
    assert stack.finished("rollout_alpha", rollout) == "failed"
    assert stack.states("rollout_alpha", rollout) == {
        "verify": "success", "shadow": "success", "canary_1": "failed", "canary_2": "upstream_failed",
        "full": "upstream_failed", "revert": "success",
    }  # fmt: skip
    assert "reverted: told so" in stack.run("rollout_alpha", rollout)["note"]


def test_a_superseded_rollout_ends_quietly(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.release("beta", look="superseded", look_index=1)
    rollout = str(stack.wait_step("beta", "verify", since)["run"])
    assert stack.finished("rollout_beta", rollout) == "success"
    states = stack.states("rollout_beta", rollout)
    assert (states["canary_1"], states["canary_2"], states["full"]) == ("success", "skipped", "skipped")
    assert "superseded" in stack.run("rollout_beta", rollout)["note"]


@pytest.mark.req("D10")
def test_a_task_killed_in_a_canary_step_runs_again(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = stack.release("gamma", kill="begin_step")
    rollout = str(stack.wait_step("gamma", "verify", since)["run"])
    assert stack.finished("rollout_gamma", rollout, 120) == "success"
    indexes = [line["index"] for line in stack.journal("gamma", since) if line["step"] == "begin_step"]
    assert indexes == [0, 0, 1]


@pytest.mark.req("D4")
def test_a_night_is_one_graph_with_one_note(airflow_stack: Stack) -> None:
    stack = airflow_stack
    since = time.time()
    agents = ("alpha", "beta", "gamma")
    stack.call("PATCH", "/api/v2/dags/nightly_retrain", {"is_paused": False})
    try:
        run = stack.trigger("nightly_retrain", {"full": True})
        assert stack.finished("nightly_retrain", run, 120) == "success"
        asked = {agent: stack.wait_step(agent, "claim", since) for agent in agents}
        assert {(line["reason"], line["mode"]) for line in asked.values()} == {("schedule", "batch")}
        assert stack.run("nightly_retrain", run)["note"].count("nothing to train") == 3
    finally:
        stack.end_the_night(*agents)


@pytest.mark.req("D9")
def test_a_new_agent_is_one_file_and_a_broken_one_stops_nobody(airflow_stack: Stack) -> None:
    stack = airflow_stack
    broken = stack.fleet / "broken.py"
    broken.write_text("from perennial.fleet import Agent\n\nAGENT = Agent(nmae='x')\n")
    stack.add_agent("delta")
    try:
        stack.wait(lambda: {"train_delta", "rollout_delta"} <= stack.dags(), 60, "the DAGs of delta appear")
        since = stack.due("delta", tasks=["topic"], gate="hold")
        assert stack.wait_step("delta", "settle", since, 90)["outcome"] == "held"
        check = stack.trigger("fleet_check")
        assert stack.finished("fleet_check", check) == "failed"
        assert f"{broken}:3: TypeError" in stack.run("fleet_check", check)["note"]
        errors = stack.call("GET", "/api/v2/importErrors")["import_errors"]
        assert errors == []
    finally:
        broken.unlink()
    check = stack.trigger("fleet_check")
    assert stack.finished("fleet_check", check) == "success"

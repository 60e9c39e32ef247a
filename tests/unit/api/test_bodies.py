"""Whatever is sent, an answer comes back, and it is never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.conftest import Plane

ROUTES = [
    "/v1/predict",
    "/v1/outcomes",
    "/v1/examples",
    "/v1/feedback",
    "/v1/corrections",
    "/v1/reports",
    "/v1/rollback",
    "/v1/faults",
]
_JSON = {"content-type": "application/json"}
_EXAMPLE = '{"agent_name":"scout","task_type":"topic","input_text":%s,"expected_output":%s,"uncertainty_score":%s}'
_ASK = '{"agent":%s,"task":%s,"inputs":%s,"key":%s}'

ODD = [
    b"", b"{", b"null", b"true", b"7", b'"text"', b"[]", b"[[]]", b"[null]", b"{}", b"\xff\xfe", b"NaN", b"[NaN]",
    b'{"a":Infinity}', b'{"a":1e400}', b'{"a":-1e400}', b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000,
    b'{"agent":"scout","agent":"other"}', b'{"inputs":["a"]}', b"\xef\xbb\xbf{}", b'{"\\ud800":1}', b'[{"a":"\\u0000"}]',
    (_EXAMPLE % ('"\\u0000"', '"x"', "0.5")).encode(), (_EXAMPLE % ('"\\ud800"', '"x"', "0.5")).encode(),
    (_EXAMPLE % ('"x"', '"\\ud800"', "0.5")).encode(), (_EXAMPLE % ('"x"', "NaN", "0.5")).encode(),
    (_EXAMPLE % ('"x"', '"x"', "1e400")).encode(), (_EXAMPLE % ('"x"', "1" * 30, "0.5")).encode(),
    (_EXAMPLE % ('"x"', "[" * 200 + "]" * 200, "0.5")).encode(),
    (_ASK % ('"scout"', '"topic"', '["\\ud800"]', '"k"')).encode(), (_ASK % ('"\\ud800"', '"topic"', '["a"]', "1")).encode(),
    (_ASK % ('"scout"', '"\\u0000"', '["a"]', "null")).encode(), (_ASK % ('"scout"', '"topic"', '"a"', "1")).encode(),
    (_ASK % ('"scout"', '"topic"', "[7]", "1")).encode(), (_ASK % ('"scout"', '"topic"', '["a"]', "[1]")).encode(),
    (_ASK % ('"scout"', '"topic"', "[]", "1")).encode(), (_ASK % ('"scout"', '"topic"', '[{"a":1}]', "1")).encode(),
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_odd_bodies_are_refused_by_every_route(plane: Plane, route: str) -> None:
    plane.world.champion("1.0.0")
    for raw in ODD:
        answer = plane.client.post(route, content=raw, headers=_JSON)
        assert answer.status_code in {403, 404, 409, 422}, (route, raw[:60], answer.status_code, answer.text[:200])
        assert answer.json().get("error") or answer.json().get("results")
    assert not plane.stored


@pytest.mark.parametrize("route", ["/v1/examples", "/v1/predict", "/v1/outcomes", "/v1/reports"])
@pytest.mark.parametrize("raw", [b"[NaN]", b"[Infinity]", b'[{"a":"\\u0000"}]', b'[{"agent_name":"\\ud800"}]'])
def test_what_json_or_postgresql_does_not_know_is_a_422(plane: Plane, route: str, raw: bytes) -> None:
    plane.world.champion("1.0.0")
    assert plane.client.post(route, content=raw, headers=_JSON).status_code == 422


_any = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["scout", "topic", "world"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
_fields = [
    "agent", "agent_name", "task", "task_type", "inputs", "input_text", "expected_output", "uncertainty_score", "key",
    "prediction_id", "actual", "priority", "correct_output", "predicted_output", "confidence_score", "example_id",
    "timestamp", "version", "kind", "rate", "examples", "outcomes", "reason", "actor",
]  # fmt: skip
_bodies = st.one_of(_any, st.dictionaries(st.sampled_from(_fields), _any, max_size=8))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(ROUTES), body=_bodies)
def test_generated_bodies_never_end_in_a_500(plane: Plane, route: str, body: Any) -> None:
    raw = json.dumps(body, ensure_ascii=True).encode()
    answer = plane.client.post(route, content=raw, headers=_JSON)
    assert answer.status_code != 500, (route, raw[:300], answer.text)
    json.loads(answer.content)


def test_too_many_at_once_are_refused(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    body = {"agent": "scout", "task": "topic", "inputs": ["a"] * 257}
    assert plane.post("/v1/predict", body).json()["field"] == "inputs"
    assert plane.post("/v1/examples", [{}] * 5001).json()["field"] == "body"

"""Fixtures that every room may use."""

import os
from typing import Any

import pytest
from hypothesis import settings

# The result of a test depends on the code alone: examples are drawn from a fixed seed. `HYPOTHESIS_PROFILE=explore make test`
# draws new ones; what it finds belongs into the test as a value that is always tried.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Workers side by side share the cores: with a thread of torch's per core in each of them, they wait for each other's threads and
# take twice as long. Libraries read this when they are loaded, and what a test starts inherits it.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(_share))

# Every file with the fixture `stack`; a test that is missing here boots a stack of its own, no more.
ON_THE_SESSIONS_STACK = ("tests/integration/stack/test_running.py", "tests/acceptance/test_stack_loop.py")

pytest_plugins = ["tests.postgres_fixture", "tests.stack_fixture"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left with one at the end; tests on the session's running stack last.

    Among those that use the stack, the ones that look at it at rest come before those that train on it. Side by side a file stays with
    one worker (``--dist loadfile``), and what it starts is started once.
    """
    items.sort(key=_place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``: the files that use the session's stack stay with one worker too, so that it boots once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByStack(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "the session's stack" if file in ON_THE_SESSIONS_STACK else file

    return ByStack(config, log)


def _place(item: pytest.Item) -> tuple[bool, bool, bool]:
    on_stack = "stack" in _fixtures(item)
    trains = "acceptance" in item.path.parts
    short = not {"acceptance", "integration", "dags"} & set(item.path.parts)
    return on_stack, on_stack and trains, short


def _fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))

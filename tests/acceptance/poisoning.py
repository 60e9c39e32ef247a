"""An attack on one in-process deployment: who sends how much of a batch with flipped labels, and what it does to clean rows.

Everything between the claim and the gate is the code that the tasks call. Shared by ``benchmarks/bench_poisoning.py`` and its short
form, ``test_poisoning.py``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_OID, UUID, uuid5

import psycopg

from perennial.domain.example import Example
from perennial.domain.words import Source
from perennial.flows import train
from perennial.flows.champion import champion_folder, component
from tests.acceptance.world import World, make_world
from tests.postgres_fixture import Database

TASK = "news_classification"
FLEET = """
from perennial.fleet import Agent, Gates, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="scout", owner="tests", trainer=EwcText(), max_buffer_size=20000, tasks=(Task(name="news_classification"),),
    selection=Selection(batch=3000, replay=200, holdout_share={holdout}, holdout_max=400{more}),
    gates=Gates(min_holdout=40),
)
"""
OPEN = ', trusted_sources=("*/*",), near_duplicates=0'  # the defences off


@dataclass(frozen=True, kw_only=True)
class Row:
    """A text with its true label."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Attack:
    """``share`` of the batch is of ``victim`` and says ``claims``; sent by so many ``accounts``, new ones or long known."""

    share: float
    accounts: int
    victim: str
    claims: str
    known: bool = False

    def __str__(self) -> str:
        if not self.share:
            return "none"
        return f"{self.share:.0%} from {self.accounts} {'known' if self.known else 'new'} source{'s' * (self.accounts > 1)}"


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What came of it. Changes are candidate minus champion on clean rows that the deployment never saw, in points."""

    claimed: int
    flipped_claimed: int
    flipped_trained: int
    honest_held: int  # by the screening, for any reason
    overall: float
    slice: float
    action: str


def found_champion(
    database: Database, folder: Path, rows: Sequence[Row], *, holdout: float = 0.2, people: int = 30
) -> World:
    """A deployment whose first version learned ``rows``: four fifths from an archive, the rest from ``people`` untrusted readers."""
    world = make_world(database, folder, read_before=True)
    defend(world, holdout=holdout)
    world.ports.buffer.add_many(
        [
            _example(row, "archive", Source.IMPORT) if number % 5 else _example(row, f"reader-{number // 5 % people}")
            for number, row in enumerate(rows)
        ]
    )
    world.train_once()
    world.promote()
    return world


def defend(world: World, *, holdout: float = 0.2, defended: bool = True) -> None:
    """Write the fleet file, with the defences of its defaults or without any."""
    from perennial.flows import fleet_sync

    text = FLEET.format(holdout=holdout, more="" if defended else OPEN)
    (world.ports.settings.fleet_folder / "scout.py").write_text(text)
    fleet_sync.sync(world.ports)


def sent(
    database: Database,
    world: World,
    honest: Sequence[Row],
    victims: Sequence[Row],
    attack: Attack,
    *,
    seed: int = 1,
    people: int = 30,
) -> tuple[list[UUID], set[UUID]]:
    """Put one batch into the buffer; ids of all its rows and of the flipped ones.

    Three in five honest rows are outcomes that the gateway recorded, the others come from known readers. The attacker claims the
    highest importance.
    """
    count = round(len(honest) * attack.share / (1 - attack.share))
    flipped = [
        _example(Row(text=row.text, label=attack.claims), f"account-{seed}-{number % attack.accounts}", importance=1.0)
        for number, row in enumerate(victims[:count])
    ]
    assert len(flipped) == count, "too few rows of the victim's label"
    good = [
        _example(row, "gateway", Source.GATEWAY)
        if number % 5 < 3
        else _example(row, f"reader-{(2 * (number // 5) + number % 5) % people}")
        for number, row in enumerate(honest)
    ]
    batch = [*good, *flipped]
    random.Random(seed).shuffle(batch)
    world.ports.buffer.add_many(batch)
    if attack.known:
        with psycopg.connect(database.superuser) as connection:
            connection.execute(
                "UPDATE perennial.sources SET first_seen = first_seen - interval '30 days' WHERE source_id LIKE 'account-%'"
            )
    return [one.example_id for one in batch], {one.example_id for one in flipped}


@contextmanager
def undone(database: Database, ids: Sequence[UUID]) -> Iterator[None]:
    """Take a batch out of the books afterwards, so that the next attack meets the same deployment."""
    try:
        yield
    finally:
        with psycopg.connect(database.superuser) as connection:
            for table in ("examples", "originals"):
                connection.execute(f"DELETE FROM perennial.{table} WHERE example_id = ANY (%s)", (list(ids),))  # type: ignore[arg-type]
            connection.execute("DELETE FROM perennial.sources WHERE source_id LIKE 'account-%'")


def harm(
    database: Database,
    world: World,
    honest: Sequence[Row],
    victims: Sequence[Row],
    clean: Sequence[Row],
    attack: Attack,
    *,
    seed: int = 1,
    people: int = 30,
) -> Harm:
    """One attack on the deployment: claim, screen, train, evaluate, gate; then measured on clean rows, and undone."""
    ids, flipped = sent(database, world, honest, victims, attack, seed=seed, people=people)
    with undone(database, ids):
        ref = world.claim()
        assert ref is not None
        claimed = {row.example_id for row in world.ports.buffer.claimed_rows(ref.job_id, ref.attempt)}
        verdict = world.learn(ref)
        left = {row.example_id for row in world.ports.buffer.claimed_rows(ref.job_id, ref.attempt)}
        root = world.ports.work / str(ref.job_id) / str(ref.attempt)
        aside = json.loads((root / "screening.json").read_text())["aside"]
        held = {UUID(identity) for ids_of_reason in aside.values() for identity in ids_of_reason}
        overall, worst = _changes(world, root / "candidate" / "tasks" / TASK, clean, attack.victim)
        train.settle(world.ports, ref, "cancelled")
    return Harm(
        claimed=len(claimed), flipped_claimed=len(claimed & flipped), flipped_trained=len(left & flipped),
        honest_held=len(held - flipped), overall=overall, slice=worst, action=verdict["action"],
    )  # fmt: skip


def _changes(world: World, candidate: Path, clean: Sequence[Row], victim: str) -> tuple[float, float]:
    """Points by which accuracy changed, over all rows and over the victim's."""
    trainer = world.ports.fleet().agent("scout").trainer
    found = champion_folder(world.ports, "scout")
    assert found is not None
    old = component(found[1], TASK)
    assert old is not None
    right: dict[str, list[bool]] = {}
    for name, path in (("old", old), ("new", candidate)):
        answers = trainer.load(path, world.ports.bench).predict([row.text for row in clean])
        right[name] = [answer.output == row.label for answer, row in zip(answers, clean, strict=True)]
    gains = [new - old for new, old in zip(right["new"], right["old"], strict=True)]
    of_victim = [gain for gain, row in zip(gains, clean, strict=True) if row.label == victim]
    return 100 * sum(gains) / len(gains), 100 * sum(of_victim) / len(of_victim)


def _example(row: Row, source_id: str, source: Source = Source.EXAMPLE, importance: float = 0.5) -> Example:
    return Example(
        agent="scout", task=TASK, input_text=row.text, expected_output=row.label, uncertainty=0.5, importance=importance,
        source=source, source_id=source_id, example_id=uuid5(NAMESPACE_OID, f"{source_id} {row.label} {row.text}"),
    )  # fmt: skip

"""What a release says about how to make it again: kept in training order, bound by the manifest, readable where it is absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from perennial.domain.example import TrainingRow
from perennial.errors import UntrustedBundle
from perennial.registry.bundle import assemble, check_bundle
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Recipe, Role, RowMark, row_digest, rows_as_bytes, rows_from_bytes
from tests.unit.registry.samples import REPORT, components, manifest, recipe


def _rows(count: int = 3) -> dict[str, dict[Role, tuple[RowMark, ...]]]:
    made = [
        RowMark(example_id=str(uuid4()), digest=f"{number:032x}", priority=number % 4, correction=number == 2)
        for number in range(count)
    ]
    return {"news": {Role.NEW: tuple(reversed(made)), Role.REPLAY: (), Role.HOLDOUT: (made[0],)}}


def _bundle(room: Path) -> Path:
    candidate, rows = components(room / "candidate"), _rows()
    return assemble(
        candidate / "tasks", manifest(candidate, rows=rows, recipe=recipe(rows)), REPORT, room / "release"
    )  # fmt: skip


@pytest.mark.req("K57")
def test_rows_come_back_in_training_order_with_their_flags() -> None:
    rows = _rows(9)
    assert rows_from_bytes(rows_as_bytes(rows)) == rows
    assert Recipe.from_dict(json.loads(json.dumps(recipe(rows)))).as_dict() == recipe(rows)


@pytest.mark.req("K57")
def test_the_manifest_binds_the_rows_and_other_rows_are_refused(tmp_path: Path) -> None:
    folder = _bundle(tmp_path)
    assert set(check_bundle(folder).rows) == {"news"}
    file = folder / "rows.json"
    genuine = file.read_bytes()
    file.write_bytes(genuine.replace(b"false", b"true"))
    with pytest.raises(UntrustedBundle, match="do not match"):
        Manifest.read(folder)
    for broken in (b"{}", b"[]", b"nonsense"):
        file.write_bytes(broken)
        with pytest.raises(UntrustedBundle):
            Manifest.read(folder)
    file.unlink()
    with pytest.raises(UntrustedBundle, match="not readable"):
        Manifest.read(folder)


@pytest.mark.req("K57")
def test_a_bundle_from_before_the_recipe_can_still_be_read(tmp_path: Path) -> None:
    folder = _bundle(tmp_path)
    record = json.loads((folder / "manifest.json").read_text())
    del record["recipe"]
    (folder / "manifest.json").write_text(json.dumps(record))
    (folder / "rows.json").unlink()
    found = check_bundle(folder)
    assert (found.recipe, found.rows) == ({}, {})
    assert "recipe" in found.missing()  # but nothing new is published without it


def test_a_digest_tells_texts_labels_and_ids_apart_and_nothing_else() -> None:
    row = TrainingRow(example_id=UUID(int=1), task="news", text="Rain.", label="weather", priority=2)
    assert row_digest(replace(row, priority=0, correction=True, source_id="x")) == row_digest(row)
    others = [replace(row, text="Rain!"), replace(row, label="sports"), replace(row, example_id=UUID(int=2))]
    assert len({row_digest(other) for other in (row, *others)}) == 4
    assert row_digest(replace(row, label=1)) != row_digest(replace(row, label="1"))

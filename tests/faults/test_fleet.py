"""The workers of a run, and the settings of each alone."""

from pathlib import Path

import pytest

from tests.faults.fleet import DSN, Fleet


def test_each_worker_has_its_own_way_to_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.fleet.Slot.start", lambda *_, **__: None)
    fleet = Fleet({DSN: "one"}, tmp_path, ["one", "two"])
    assert [slot.settings[DSN] for slot in fleet.slots] == ["one", "two"]
    assert fleet.double(fleet.slots[1]).settings == fleet.slots[1].settings
    assert fleet.join().settings == {DSN: "one"}

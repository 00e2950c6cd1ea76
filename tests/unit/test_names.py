"""The names by which mutants, fault points and the model refer to the code: each names something that exists.

A mutant that replaces a missing function changes nothing, and its survival would make its rule look unneeded.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults import mutants
from tests.faults.mutants import MUTANTS, MutantSpec
from tests.support.waiting import run_to_end
from worker import pipeline
from worker.lanes import publication, publisher
from worker.lanes.lane import Lane
from worker.lanes.membership import Membership
from worker.lanes.publisher import TransactionalPublisher
from worker.lanes.row import LaneRow
from worker.lanes.start import Starter
from worker.lanes.supervisor import Supervisor
from worker.postgres.sql import statements

MODEL: Final = Path(__file__).parents[1] / "model"
STEPS: Final[dict[str, Callable[..., Any]]] = {
    "_let_go": Supervisor._let_go,
    "take": LaneRow.take,
    "require_owned": LaneRow.require_owned,
    "open": publication.Publication.open,
    "read_committed": publication.Publication.read_committed,
    "_take": Lane._take,
    "_recall": pipeline.Pipeline._recall,
    "_renew": pipeline._renew,
    "_move": pipeline._move,
    "publish": TransactionalPublisher.publish,
    "send": publisher.send,
    "_settled": publication.Publication._settled,
    "confirmed_after": Membership.confirmed_after,
    "_lose": Starter._lose,
    "_carry_out": Starter._carry_out,
    "block": LaneRow.block,
    "_decide": pipeline.Pipeline._decide,
}
"""The labels of the model that are functions of this project."""
CALLS: Final = {
    "begin_transaction": "aiokafka",
    "send_offsets_to_transaction": "aiokafka",
    "commit_transaction": "aiokafka",
    "commit": "aiokafka",
    "open_lane": "lanes/open",
    "order_done": "lanes/order_done",
    "lose_row": "lanes/lose_commands",
}
"""The labels that are calls of the client's, or a statement."""
PLACES: Final = {
    *("_start_missing", "opened", "decided", "after_commit", "send_at_least", "published", "fenced", "lose_later"),
    *("settle_order", "carried_out", "stays_blocked", "overtaken", "refused_for_ever", "crashed"),
}
"""The labels that are no step: states of a worker, and branches of mutants."""


def labels() -> set[str]:
    return {
        label
        for path in MODEL.glob("*.pml")
        for label in re.findall(r"^([A-Za-z_]\w*):(?!:)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_label_of_the_model_names_its_function() -> None:
    assert labels() == STEPS.keys() | CALLS.keys() | PLACES
    assert {label: step.__name__ for label, step in STEPS.items()} == {label: label for label in STEPS}
    assert {each for each in CALLS.values() if "/" in each} <= statements()


@pytest.mark.parametrize("spec", MUTANTS.values(), ids=list(MUTANTS))
def test_a_mutant_replaces_what_exists(spec: MutantSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[tuple[Any, str]] = []

    def note(owner: Any, **functions: Any) -> None:
        replaced.extend((owner, name) for name in functions)

    monkeypatch.setattr(mutants, "_put", note)
    spec.undo()

    assert replaced
    assert [name for owner, name in replaced if not hasattr(owner, name)] == []


def test_a_fault_point_is_hooked_into_what_exists() -> None:
    """The test runs in a process of its own: a point stays hooked in."""
    program = "from tests.faults.points import POINTS; [hook(None) for hook in POINTS.values()]"
    hooked = run_to_end([sys.executable, "-c", program], cwd=MODEL.parents[1])
    assert (hooked.returncode, hooked.stderr) == (0, "")

"""``set not effective``, a method of the source API that tests alone have: the recipe of CONTRIBUTING, followed.

``python -m tests.support.sibling`` is a worker that carries it out beside the released one.
"""

from pathlib import Path
from typing import Final

from effective_contract.codes import StatusCode
from effective_contract.methods import Method, Methods
from effective_contract.states import LifeCycleState
from worker.cli.run import work
from worker.cli.terminal import run_to_end, settings_from_environment
from worker.resilience.deadline import hold_signals

SET_NOT_EFFECTIVE: Final = Method(
    name="set_not_effective",
    command_type="access_token.set_not_effective.v1",
    result_type="access_token.set_not_effective.result.v1",
    right="ACCESS_TOKENS.SET_NOT_EFFECTIVE",
    from_state=LifeCycleState.EFFECTIVE,
    to_state=LifeCycleState.NOT_EFFECTIVE,
    done="set not effective",
    sentences={
        StatusCode.ACCESS_DENIED: "The user is not allowed to set access tokens as not effective.",
        StatusCode.INVALID_LIFE_CYCLE_STATE: "Only an effective access token can be set as not effective.",
    },
)
BOTH: Final = Methods([SET_NOT_EFFECTIVE])
MIGRATION: Final = (Path(__file__).parent / "sibling.sql").read_text()
WORKER: Final = ("-m", "tests.support.sibling")
"""The arguments for Python."""


if __name__ == "__main__":
    hold_signals()
    raise SystemExit(run_to_end(work(settings_from_environment(needs_login=True), BOTH)))

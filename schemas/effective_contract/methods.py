"""The methods of the source API that a worker carries out: each is a row, and the journey is the same for all.

See CONTRACT, Command and Statuses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from effective_contract.codes import StatusCode
from effective_contract.states import LifeCycleState


@dataclass(frozen=True, slots=True)
class Method:
    """A method: the type of its commands and answers, the right that it takes, its transition, and its own words."""

    name: str
    command_type: str
    """``ce_type`` of its commands."""
    result_type: str
    """``ce_type`` of its answers."""
    right: str
    """The right that the caller must have."""
    from_state: LifeCycleState
    to_state: LifeCycleState
    done: str
    """The change in the words of an answer: the access token that this command has ``done``."""
    sentences: Mapping[StatusCode, str] = field(default_factory=dict, hash=False)
    """The descriptions of the statuses that speak of the method. Those of ``StatusCode`` speak of set effective."""

    @property
    def reached(self) -> str:
        """Return the state that it leads to, in words."""
        return self.done.removeprefix("set ")

    def description(self, code: StatusCode) -> str:
        """Return the fixed sentence of a status, in an answer to a command of this method."""
        return self.sentences.get(code) or code.description


SET_EFFECTIVE: Final = Method(
    name="set_effective",
    command_type="access_token.set_effective.v1",
    result_type="access_token.set_effective.result.v1",
    right="ACCESS_TOKENS.SET_EFFECTIVE",
    from_state=LifeCycleState.NOT_EFFECTIVE,
    to_state=LifeCycleState.EFFECTIVE,
    done="set effective",
)
"""The method of a command that names none. Its requests are digested without a name, as before there were others."""


class Methods:
    """The methods that one worker carries out, by the type of their commands. The first one is ``SET_EFFECTIVE``."""

    def __init__(self, others: Iterable[Method] = ()) -> None:
        """Raises ``ValueError`` if two methods have a name or a type of commands or results in common."""
        self.all: Final = (SET_EFFECTIVE, *others)
        for distinct in ("name", "command_type", "result_type"):
            if len({getattr(method, distinct) for method in self.all}) < len(self.all):
                raise ValueError(f"two methods have the same {distinct}")
        self.of_type: Final[Mapping[str, Method]] = {method.command_type: method for method in self.all}
        self.returning: Final = frozenset(method.name for method in self.all if self._returns(method))
        """The names of the methods that may find an access token in their first state again, by way of others."""

    def _returns(self, method: Method) -> bool:
        reached = {method.to_state}
        for _ in self.all:
            reached |= {each.to_state for each in self.all if each.from_state in reached}
        return method.from_state in reached


METHODS: Final = Methods()
"""The methods that are released."""

"""The outcomes of a command other than the answer ``OK``. None of them repeats a login token or a pass code.

=====================  ========================================================================  ===================
error                  what happened                                                             may be applied
=====================  ========================================================================  ===================
``InvalidCommand``     the command breaks the contract; it was not sent                          no
``CommandTooLarge``    larger than the topic takes; the broker has refused it                    no
``CommandNotTaken``    the broker has refused it for another reason, such as a missing right     no
``CommandRefused``     answered, with another status than ``OK``                                 no
``CommandTimeout``     not answered in time, or not even sent: too many calls waited             yes, or no
``UnreadableReply``    answered, but not with a result                                           yes
``RepliesLost``        the reply topic cannot be read any more: the client must be reopened      yes
``ClientClosed``       the client was closed while the call waited, or before                    yes, or no
=====================  ========================================================================  ===================

:attr:`CommandError.may_be_applied` tells it for the error itself: an earlier attempt under the same id that was not
answered may still be applied as well; a dry run never is. To find out, ask again with the same ``ce_id`` and
``ce_source``: a command is applied once, and answered ``OK`` again (CONTRACT, Idempotency).
"""

from typing import Final

from aiokafka import errors as kafka

from effective_contract.codes import StatusCode
from effective_contract.rules.faults import Fault

_NEEDS_NEW_LOGIN: Final = frozenset({StatusCode.INVALID_TOKEN, StatusCode.EXPIRED_TOKEN})


class ClientError(Exception):
    """The base of all errors that the client itself raises."""


class BrokerAway(ClientError):
    """The client could not be opened: no broker answered in time, or it did not let the client in."""

    def __init__(self, servers: str, error: BaseException, *, seconds: float) -> None:
        super().__init__(_what_of(servers, error, seconds))


class NoSuchTopic(ClientError):
    """The client could not be opened: ``topic`` does not exist, or may not be seen. It is never created."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"the topic {topic} does not exist, or may not be seen")
        self.topic = topic


class CommandError(ClientError):
    """The error that ended one call. To ask again, use its ``ce_id`` and ``ce_source``."""

    def __init__(self, what: str, *, ce_id: str, ce_source: str, may_be_applied: bool) -> None:
        super().__init__(what)
        self.ce_id = ce_id
        self.ce_source = ce_source
        self.may_be_applied = may_be_applied

    def __str__(self) -> str:
        what = super().__str__()
        if not self.may_be_applied:
            return what
        named = f"ce_id={self.ce_id!r} and ce_source={self.ce_source!r}"
        end = "" if what.endswith("?") else "."
        return f"{what}{end} The command may still be applied: ask again with {named}, which is safe"


class InvalidCommand(CommandError, ValueError):
    """The command breaks the contract and was not sent. ``fault`` is what a worker would refuse it for."""

    def __init__(self, fault: Fault, *, ce_id: str, ce_source: str) -> None:
        super().__init__(fault.message, ce_id=ce_id, ce_source=ce_source, may_be_applied=False)
        self.fault = fault


class CommandNotTaken(CommandError):
    """The broker has refused the command, and would refuse it again. ``__cause__`` is its error."""


class CommandTooLarge(CommandNotTaken):
    """The command is larger than the topic takes."""


class CommandRefused(CommandError):
    """The worker's answer is not ``OK``: the delivery that it answers has changed nothing.

    ``code`` is a code of this version of the contract, or the text of a later one. ``dry_run``: the command was one,
    and this would be the answer to a real one.
    """

    def __init__(
        self,
        *,
        code: StatusCode | str,
        description: str,
        message: str,
        command_id: str,
        ce_id: str,
        ce_source: str,
        dry_run: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message or description}", ce_id=ce_id, ce_source=ce_source, may_be_applied=False)
        self.code = code
        self.description = description
        self.message = message
        self.command_id = command_id
        self.dry_run = dry_run

    @property
    def retryable(self) -> bool:
        """True if the same command may succeed as it is (CONTRACT, Result)."""
        return self.code == StatusCode.INTERNAL_ERROR

    @property
    def needs_new_login(self) -> bool:
        """True if the same command may succeed with another login token (CONTRACT, Result)."""
        return self.code in _NEEDS_NEW_LOGIN


class CommandTimeout(CommandError, TimeoutError):
    """No answer came within ``timeout`` seconds. ``taken``: True if the broker acknowledged the command.

    ``is_refusal_unseen``: True if the worker may have refused the client's ``reply_to`` in a results topic that the
    client cannot read.
    """

    def __init__(
        self,
        *,
        timeout: float,
        sent: bool,
        taken: bool,
        ce_id: str,
        ce_source: str,
        is_refusal_unseen: bool = False,
    ) -> None:
        by_whom = "the worker" if taken else "the broker"
        what = f"no answer of {by_whom} within {timeout:g} s" if sent else f"not sent within {timeout:g} s"
        if is_refusal_unseen:
            what += "; a refusal of the reply topic could not be seen: does the worker allow it?"
        super().__init__(what, ce_id=ce_id, ce_source=ce_source, may_be_applied=sent)
        self.timeout = timeout
        self.taken = taken
        self.is_refusal_unseen = is_refusal_unseen


class UnreadableReply(CommandError):
    """The command was answered, but not with a result. ``status_code`` is the one in the reply's header."""

    def __init__(self, *, status_code: str | None, ce_id: str, ce_source: str) -> None:
        what = f"the reply is no result, and its header says {status_code or 'nothing'}"
        super().__init__(what, ce_id=ce_id, ce_source=ce_source, may_be_applied=True)
        self.status_code = status_code


class RepliesLost(CommandError):
    """The reply topic cannot be read any more, for want of a right. The client must be opened again."""


class ClientClosed(CommandError):
    """The client is closed, or was not opened."""


_LOGIN: Final = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
_RIGHTS: Final = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)


def _what_of(servers: str, error: BaseException, seconds: float) -> str:
    """Return what kept a client from being opened, in the words of Kafka."""
    if isinstance(error, TimeoutError):
        return f"no broker at {servers} was ready within {seconds:g} s"
    if isinstance(error, _LOGIN):
        return f"the broker at {servers} refuses the login of this client: check sasl_mechanism, user and password"
    if isinstance(error, _RIGHTS):
        return f"the broker at {servers} gives this client no right to a topic that it needs"
    if isinstance(error, kafka.KafkaConnectionError | OSError):
        return f"no broker answers at {servers}: check bootstrap_servers, and security_protocol if it speaks TLS"
    return f"the broker at {servers} does not serve this client: {error}"

"""Send one command and wait for its answer, with the client that senders have (CONTRACT, Command line)."""

import shlex
from dataclasses import dataclass, field
from typing import Final

from aiokafka import errors as kafka

from effective_contract.client import (
    Answer,
    BrokerAway,
    CommandClient,
    CommandError,
    CommandNotTaken,
    CommandRefused,
    CommandTimeout,
    NoSuchTopic,
    RepliesLost,
    Retry,
    UnreadableReply,
)
from effective_contract.headers import CE_ID, CE_SOURCE, REPLY_TO
from effective_contract.methods import METHODS
from effective_contract.rules.body import fault_of
from effective_contract.rules.faults import Fault, invalid
from effective_contract.rules.headers import first_fault, read_headers
from worker.errors import OperatorError, in_words
from worker.kafka.client import client_options
from worker.kafka.remarks import Remarks, remarks, why_unusable
from worker.operations.login_source import LoginFailed, LoginSource
from worker.settings import Settings

SOURCE: Final = "/effective-worker/send"
"""The ``ce_source`` of a command that is given none."""
_ANY_LOGIN: Final = "-"


class NotSent(OperatorError):
    """The command was not sent: nothing has come of it."""


class NoAnswer(OperatorError):
    """The command has no answer to go by. ``may_be_applied``: its id is the way to find out."""

    def __init__(self, what: str, request: "Request", *, may_be_applied: bool) -> None:
        super().__init__(what)
        self.ce_id = request.ce_id
        self.ce_source = request.ce_source
        self.may_be_applied = may_be_applied


@dataclass(frozen=True, slots=True)
class Request:
    """One command, without its login. Its ``repr`` has neither credentials nor an identifier."""

    authentication_code: str | None = field(repr=False)
    identifier: str | None = field(repr=False)
    pass_code: str | None = field(repr=False)
    fields_set: str | None
    ce_id: str
    ce_source: str
    key: str | None = None
    reply_to: str | None = None
    dry_run: bool = False
    timeout: float = 30.0
    """Seconds to wait for the broker, and for the answer to each attempt."""
    attempts: int = 1

    def fault(self) -> Fault | None:
        """Return the first thing that the contract does not allow, in the words of a worker, which repeat no secret."""
        identifier = {
            "authentication_code": self.authentication_code,
            "identifier": self.identifier,
            "pass_code": self.pass_code,
        }
        command = {"token": _ANY_LOGIN, "access_token_identifier": identifier, "fields_set": self.fields_set}
        texts = {CE_ID: self.ce_id, CE_SOURCE: self.ce_source, REPLY_TO: self.reply_to}
        empty = next((name for name, text in texts.items() if text == ""), None)
        if empty is not None:
            return invalid(f"{empty} is empty", empty)
        try:
            headers = [(name, text.encode()) for name, text in texts.items() if text is not None]
            _ = self.key is not None and self.key.encode()
        except UnicodeEncodeError:
            return invalid("an option is not valid UTF-8")
        given, _, wrong = read_headers(headers, METHODS.of_type)
        return fault_of(command) or first_fault(given, wrong)


class Sending:
    """One command on its way to its answer."""

    def __init__(self, settings: Settings, request: Request, login: LoginSource) -> None:
        self._settings = settings
        self._request = request
        self._login = login
        self._begun = False

    async def run(self) -> Answer:
        """Send the command and return the answer, refusals included.

        Raises ``LoginFailed`` or ``NotSent`` if nothing was sent, ``NoAnswer``, and ``SettingsError``.
        """
        await self._login.current()
        with remarks("aiokafka", "effective_contract") as said:
            try:
                async with self._client() as client:
                    self._begun = True
                    return await self._asked(client)
            except BrokerAway as error:
                raise NotSent(f"kafka: {self._why_away(error, said)}") from None
            except NoSuchTopic as missing:
                way_out = "make it with effective-worker topics apply"
                if missing.topic == self._request.reply_to:
                    way_out = "make it on the broker, and let the worker answer there (WORKER_TOPICS__REPLY_TO_ALLOWED)"
                what = f"the topic {missing.topic} does not exist, or this login may not see it"
                raise NotSent(f"kafka: {what}: {way_out}, or allow DESCRIBE on it") from None

    def interrupted(self) -> NoAnswer:
        """Return the error of a ``run`` that was cancelled."""
        what = "interrupted before the answer came" if self._begun else "interrupted before the command was sent"
        return self._no_answer(what, may_be_applied=self._begun)

    @property
    def _answers(self) -> str:
        return self._request.reply_to or self._settings.topics.results

    def _client(self) -> CommandClient:
        options, topics = client_options(self._settings.kafka), self._settings.topics
        return CommandClient(
            options.pop("bootstrap_servers"),
            commands=topics.commands,
            results=topics.results,
            reply_to=self._request.reply_to,
            open_timeout=self._request.timeout,
            connection=options,
        )

    async def _asked(self, client: CommandClient) -> Answer:
        request = self._request
        try:
            answer = await client.set_effective(
                token=self._token,
                authentication_code=request.authentication_code,
                identifier=request.identifier,
                pass_code=request.pass_code,
                fields_set=request.fields_set,
                ce_id=request.ce_id,
                ce_source=request.ce_source,
                key=request.key,
                dry_run=request.dry_run,
                timeout=request.timeout,
                retry=Retry(request.attempts),
            )
        except CommandRefused as refusal:
            return refusal
        except CommandError as error:
            raise self._no_answer(self._why(error), may_be_applied=error.may_be_applied) from None
        except LoginFailed as error:
            # There was a login when this began: an attempt was made with it, and not answered.
            raise self._no_answer(str(error), may_be_applied=True) from None
        if request.dry_run and not answer.dry_run:
            what = "the worker has answered without the header dry_run: it is too old to know dry runs, and has taken"
            raise NoAnswer(f"{what} the command for a real one ({answer.command_id})", request, may_be_applied=True)
        return answer

    async def _token(self) -> str:
        return (await self._login.current()).text

    def _no_answer(self, what: str, *, may_be_applied: bool) -> NoAnswer:
        request = self._request
        if request.dry_run or not may_be_applied:
            return NoAnswer(what, request, may_be_applied=False)
        again = f"--id {shlex.quote(request.ce_id)} --source {shlex.quote(request.ce_source)}"
        ask = f"The command may still be applied: ask again, which is safe, with the same options and {again}"
        return NoAnswer(f"{what}{'' if what.endswith('?') else '.'} {ask}", request, may_be_applied=True)

    def _why(self, error: CommandError) -> str:
        if isinstance(error, CommandTimeout):
            return self._why_late(error)
        if isinstance(error, CommandNotTaken) and isinstance(_origin(error), kafka.TopicAuthorizationFailedError):
            return f"kafka: the broker does not take the command: allow WRITE on topic {self._settings.topics.commands}"
        if isinstance(error, CommandNotTaken):
            return f"kafka: the broker does not take the command: {in_words(_origin(error))}"
        if isinstance(error, RepliesLost):
            return f"kafka: answers cannot be read: allow READ on topic {self._answers}"
        if isinstance(error, UnreadableReply):
            return f"what came as the answer is no result; its header status_code is {error.status_code!r}"
        return str(error.args[0])

    def _why_late(self, error: CommandTimeout) -> str:
        request, results = self._request, self._settings.topics.results
        within = f"within {error.timeout:g} s" if request.attempts == 1 else f"in {request.attempts} attempts"
        if not error.taken:
            return f"kafka: the broker has not confirmed the command {within}"
        what = f"no answer from a worker {within}: is one running?"
        if not error.is_refusal_unseen:
            return what
        topic, allowed = request.reply_to, "WORKER_TOPICS__REPLY_TO_ALLOWED"
        return f"{what} If {topic} is not in its {allowed}, it has refused that in {results}, which cannot be read here"

    def _why_away(self, away: BrokerAway, said: Remarks) -> str:
        cause = _origin(away)
        if isinstance(cause, kafka.ClusterAuthorizationFailedError):
            # To become an idempotent producer takes WRITE on any topic.
            return f"this login may send nothing: allow WRITE on topic {self._settings.topics.commands}"
        if isinstance(cause, kafka.TopicAuthorizationFailedError):
            return f"answers cannot be read: allow READ on topic {self._answers}"
        if said.failed:
            return why_unusable(said)
        return f"no broker can be used: {in_words(cause)} (WORKER_KAFKA__BOOTSTRAP_SERVERS)"


def _origin(error: BaseException) -> BaseException:
    """Return the first of the errors that led to this one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error

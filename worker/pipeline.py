"""The journey of a batch of commands, on one page.

::

    bytes -decode-> Command -judge replies-> -recall-> -verify logins and pass codes->
        -authorise-> Caller -load-> Locked -present-> Presented -recall-> -decide-> Decision
        -apply-> Transition -record-> -project-> Answered                    one Postgres transaction
        -publish-> results, transition events, dead letters, offset    one Kafka transaction (``lanes.publication``)

Everything is set-based: a batch is one command or five hundred. A command's failure is a value and never touches its
neighbours; an exception is about the whole batch (``worker.errors``).

Dry runs go the same way in batches of their own, and their effects are rolled back (CONTRACT, Command).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_parts
from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from typing import Final, TypeVar
from uuid import UUID

from msgspec.structs import replace

from effective_contract.codes import StatusCode
from effective_contract.methods import METHODS, Methods
from worker.errors import BatchConflict, BatchRefused, BreakerOpen, DependencyUnavailable, LaneLost, StatementTimeout
from worker.journey.apply import Chain, apply, chained, head
from worker.journey.attempt_limits import Attempt, Series, Subject, is_failure, must_wait, wait_of
from worker.journey.attempts import Attempts, Counted
from worker.journey.authorise import Authorisation, Logins, authorise
from worker.journey.decide import (
    AppliedId,
    State,
    decide,
    needs_history,
    needs_id_lookup,
    rehearse,
    rounds,
    shown_at_once,
)
from worker.journey.decode.command import decode
from worker.journey.digests import CommandNames
from worker.journey.load import UNCHECKED, Locked, load, present
from worker.journey.model import (
    Answer,
    Answered,
    Applied,
    Claims,
    Command,
    Decision,
    Decoded,
    LockedToken,
    Outcome,
    Presented,
    Refused,
    TokenKey,
    Transition,
    each_unrefused,
    senders_id,
)
from worker.journey.pass_codes import COMPARED, PassCodeCheck, PassCodes, look_up, question
from worker.journey.project import project
from worker.journey.recall import recall_by_coordinates, recall_by_id, recall_from_history
from worker.journey.record import record
from worker.journey.refusals import unquoted
from worker.journey.reply_topics import Replies
from worker.kafka.delivery import Coordinates, Delivery
from worker.observability.tracing import transaction_span
from worker.postgres.pool import Connection, Database, rolled_back
from worker.postgres.sql import statement
from worker.resilience.circuit_breaker import CircuitBreaker
from worker.values import Value

GONE: Final = "is gone"
UNSHOWN: Final = "cannot be shown"
CONFLICT_TIMES: Final = 5
SLOW_TIMES: Final = 3
"""The times that a lone command may run into the statement timeout before it is given up."""

T = TypeVar("T")


class Policy(Value, frozen=True):
    """The settings that bear on an answer (CONTRACT, Settings)."""

    max_command_bytes: int
    expiry_at_append: bool
    reveal_verification_code: bool


class Lease(Value, frozen=True):
    """A lane's row in Postgres, as its owner last left it. If the row differs, another worker owns the lane."""

    lane: int
    name: str
    owner: UUID
    next_offset: int
    place: tuple[int, int] | None = None
    """The address of the row's last version (its ``ctid``), as far as it is known."""


class _Verified(Value, frozen=True):
    """One command after all steps that are slow and need no lock."""

    item: Decoded
    login: Claims | Refused
    check: PassCodeCheck | None


class _Ready(Value, frozen=True):
    """One command that is ready to be decided: its id, its caller, and the access token that it names."""

    item: Decoded
    authorisation: Authorisation
    command_id: str
    presented: Presented | Refused
    attempt: Attempt | None
    """The attempt that its credentials count as."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Commands that are decided together, with everything that they are decided on, locked."""

    commands: Sequence[_Ready]
    tokens: Mapping[TokenKey, LockedToken]
    series: Mapping[Subject, Series]
    now: datetime
    """The moment by the worker's clock, at which logins are judged."""
    moment: datetime
    """The moment by Postgres's clock, which the batch's facts have."""

    @property
    def presented(self) -> list[Presented | Refused]:
        return [command.presented for command in self.commands]

    @property
    def attempts(self) -> list[Attempt | None]:
        return [command.attempt for command in self.commands]

    def only(self, positions: Sequence[int]) -> "_Batch":
        """Return a batch of some of the commands."""
        return replace_parts(self, commands=[self.commands[position] for position in positions])


class Pipeline:
    """The Postgres half of the journey: from what Kafka delivered to the answers that it must publish."""

    def __init__(
        self,
        database: Database,
        logins: Logins,
        pass_codes: PassCodes,
        attempts: Attempts,
        *,
        clock: Callable[[], float],
        policy: Policy,
        breaker: CircuitBreaker,
        beat: Callable[[], None],
        names: CommandNames,
        replies: Replies | None = None,
        methods: Methods = METHODS,
    ) -> None:
        """``clock`` gives seconds since the epoch; ``beat`` is called at every try, since halving may take minutes.

        Without ``replies`` every answer goes to the results topic: a command that names another one is refused.
        """
        self._beat = beat
        self._breaker = breaker
        self._names = names
        self._database = database
        self._logins = logins
        self._pass_codes = pass_codes
        self._attempts = attempts
        self._clock = clock
        self._methods = methods
        self._policy = policy
        self._replies = replies or Replies()

    async def run(self, lease: Lease, batch: Sequence[Delivery], first_offset: int) -> tuple[list[Answered], Lease]:
        """Decide a batch and commit it. Returns its answers in order, and the lane as it is then.

        Only the first part of the batch is decided, and published before the rest, if pass codes would take too long
        (``affordable``) or an access token would be shown in two states (``shown_at_once``). ``first_offset`` is the
        lane's committed offset: it stays the lane's ``first_offset`` until the batch is published. Raises ``LaneLost``,
        ``BreakerOpen`` and ``DependencyUnavailable``: the next try recalls what was committed before.
        """
        most, methods = self._policy.max_command_bytes, self._methods
        decoded = [decode(delivery, max_bytes=most, methods=methods) for delivery in batch]
        decoded = decoded[: affordable([self._may_be_compared(item) for item in decoded])]
        answered: list[Answered] = []
        for _, alike in groupby(await self._replies.judged(decoded), key=_is_dry_run):
            items = list(alike)
            part, lease = await self._in_pieces(lease, items, first_offset)
            answered += part
            if len(part) < len(items):
                break
        return answered, lease

    async def pass_by(self, lease: Lease, first_offset: int, next_offset: int) -> Lease:
        """Move the lane on over offsets that hold no command, as a batch without one. Raises as ``run`` does."""
        async with self._transaction() as transaction:
            lease, chain, _ = await _renew(transaction, lease)
            return await _move(transaction, lease, first_offset, (next_offset, None), chain)

    async def _in_pieces(
        self, lease: Lease, batch: Sequence[Decoded], first_offset: int
    ) -> tuple[list[Answered], Lease]:
        """Halve a batch that Postgres refuses until the bad command stands alone; its neighbours go on (DESIGN 3)."""
        try:
            return await self._until_no_conflict(lease, batch, first_offset)
        except BatchRefused as refusal:
            if len(batch) == 1:
                return await self._give_up(lease, batch[0], first_offset, refusal.reason)
        except StatementTimeout as slow:
            # Half a batch is less work for an overloaded Postgres, too.
            if len(batch) == 1:
                return await self._once_more(lease, batch[0], first_offset, slow)
        middle = len(batch) // 2
        left, lease = await self._in_pieces(lease, batch[:middle], first_offset)
        if len(left) < middle:  # the rest is for the next run
            return left, lease
        right, lease = await self._in_pieces(lease, batch[middle:], first_offset)
        return left + right, lease

    async def _once_more(
        self, lease: Lease, item: Decoded, first_offset: int, slow: StatementTimeout
    ) -> tuple[list[Answered], Lease]:
        """Give up a lone command that takes too long again and again, if Postgres is well enough to record that."""
        for _ in range(SLOW_TIMES - 1):
            try:
                return await self._until_no_conflict(lease, [item], first_offset)
            except StatementTimeout:
                continue
        return await self._give_up(lease, item, first_offset, slow.reason)

    async def _until_no_conflict(
        self, lease: Lease, batch: Sequence[Decoded], first_offset: int
    ) -> tuple[list[Answered], Lease]:
        for attempt in range(CONFLICT_TIMES):
            self._beat()
            try:
                if _is_dry_run(batch[0]):
                    return await self._rehearse(lease, batch, first_offset)
                return await self._decide(lease, batch, first_offset, optimistic=attempt == 0)
            except BatchConflict:
                continue
            except BatchRefused:
                # A lone command's id may have been bound but not looked up, and its former answer comes before the
                # refusal.
                if attempt or len(batch) > 1:
                    raise
        raise DependencyUnavailable("postgres", "the rows that decide the batch change again and again")

    async def _decide(
        self, lease: Lease, batch: Sequence[Decoded], first_offset: int, *, optimistic: bool
    ) -> tuple[list[Answered], Lease]:
        """Run the journey itself. Steps that are slow and need no lock come before the transaction.

        ``optimistic`` skips the lookup of ids that a transition is about to bind: if one was bound before, the record
        of commands refuses it, and the batch is run again.
        """
        recalled = await self._recall(lease, batch)
        if recalled and self._methods.returning:
            # What is shown of a recalled command is read before those behind it change anything.
            batch = list(next(groupby(batch, key=lambda item: _where(item) in recalled))[1])
        fresh = [item for item in batch if _where(item) not in recalled] if recalled else batch
        verified, now = await self._verify(lease.lane, fresh)
        async with self._transaction() as transaction:
            lease, chain, moment = await _renew(transaction, lease)
            ready = await self._make_ready(transaction, verified, now, moment)
            bound = await self._recall_ids(transaction, ready, optimistic=optimistic)
            batch, ready, decisions, after = self._decide_ready(batch, ready, bound)
            answers, transitions = await self._carry_out(transaction, lease, chain, ready, decisions)
            moved = await _move(transaction, lease, first_offset, _next_offset(batch), head(chain, transitions))
            outcomes = _in_order(batch, recalled, answers, transitions)
            shown = await self._show(transaction, outcomes)
            counted = await self._attempts.count(transaction, after.series)
        self._breaker.passed(len(decisions))
        self._tell(counted, ready.attempts, decisions)
        return [_answered(item, outcome, shown) for item, outcome in zip(batch, outcomes, strict=True)], moved

    def _decide_ready(
        self, batch: Sequence[Decoded], ready: _Batch, bound: Mapping[str, AppliedId]
    ) -> tuple[Sequence[Decoded], _Batch, list[Decision], State]:
        """Decide the commands that are ready, and return what is decided of the batch: its end may have to wait.

        See ``shown_at_once``. Where no method leads back, no access token changes twice.
        """
        state, limits = State(ready.tokens, bound, ready.series), self._attempts.limits
        decisions, after = decide(ready.presented, state, tried=ready.attempts, limits=limits)
        most = shown_at_once(decisions) if self._methods.returning else len(decisions)
        if most < len(decisions):
            batch = batch[: batch.index(ready.commands[most].item)]
            ready = ready.only(range(most))
            decisions, after = decide(ready.presented, state, tried=ready.attempts, limits=limits)
        return batch, ready, decisions, after

    async def _rehearse(
        self, lease: Lease, batch: Sequence[Decoded], first_offset: int
    ) -> tuple[list[Answered], Lease]:
        """Run the journey of dry runs: each as if it alone came now, and rolled back. Only the lane moves on.

        A dry run that is read again is judged again: nothing was recorded, and its first answer was never visible. The
        breaker does not count dry runs: they break nothing, and are there to find such trouble.
        """
        verified, now = await self._verify(lease.lane, batch)
        next_offset = _next_offset(batch)
        answered: dict[int, Answered] = {}
        async with self._transaction() as transaction:
            lease, chain, moment = await _renew(transaction, lease)
            ready = await self._make_ready(transaction, verified, now, moment)
            presented, attempts = ready.presented, ready.attempts
            state = State(ready.tokens, await self._recall_ids(transaction, ready), ready.series)
            decisions, after = rehearse(presented, state, tried=attempts, limits=self._attempts.limits)
            for positions in rounds(decisions):
                part, decided = ready.only(positions), [decisions[position] for position in positions]
                async with rolled_back(transaction):
                    answers, transitions = await self._carry_out(transaction, lease, chain, part, decided)
                    await _move(transaction, lease, first_offset, next_offset, head(chain, transitions))
                    outcomes = [Outcome(answer, None) for answer in answers]
                    shown = await self._show(transaction, outcomes)
                for position, command, outcome in zip(positions, part.commands, outcomes, strict=True):
                    answered[position] = _answered(command.item, outcome, shown)
            lease = await _move(transaction, lease, first_offset, next_offset, chain)
            counted = await self._attempts.count(transaction, after.series)
        self._tell(counted, attempts, decisions)
        return [answered[position] for position in range(len(batch))], lease

    async def _verify(self, lane: int, items: Sequence[Decoded]) -> tuple[list[_Verified], datetime]:
        """Verify logins and compare pass codes; return them with the moment at which the commands are decided."""
        verify = cache(self._logins.verify)  # most senders of a batch send many of its commands
        logins = each_unrefused([item.request for item in items], lambda command: verify(command.login_token))
        checks = await self._compare_pass_codes(lane, items, logins)
        verified = [_Verified(*each) for each in zip(items, logins, checks, strict=True)]
        return verified, datetime.fromtimestamp(self._clock(), UTC)

    async def _make_ready(
        self, transaction: Connection, verified: Sequence[_Verified], now: datetime, moment: datetime
    ) -> _Batch:
        """Authorise the callers, lock the access tokens, and read the failures that are counted against either."""
        at = now.timestamp()
        authorisations = await authorise(
            transaction,
            [each.login for each in verified],
            [each.item.envelope.method.right for each in verified],
            [self._judged_at(each.item, at) for each in verified],
        )
        requests = [each.item.request for each in verified]
        callers = [authorisation.caller for authorisation in authorisations]
        locked = await load(transaction, requests, callers, [each.check for each in verified])
        # The tokens are locked before the attempts are read: only under the lock is it known what other lanes have
        # counted.
        attempts = self._attempts.tried(requests, callers)
        commands = [
            _ready(each, authorisation, attempt, locked)
            for each, authorisation, attempt in zip(verified, authorisations, attempts, strict=True)
        ]
        series = await self._attempts.known(transaction, attempts, authorisations)
        return _Batch(commands, locked.by_key, series, now, moment)

    async def _carry_out(
        self, transaction: Connection, lease: Lease, chain: Chain, batch: _Batch, decisions: Sequence[Decision]
    ) -> tuple[list[Answer], list[Transition]]:
        """Write the decisions: the transitions, and the records of all commands.

        Raises ``BatchConflict`` if a command would have to be decided whose pass code was not compared.
        """
        if any(decision is UNCHECKED for decision in decisions):
            raise BatchConflict
        places = [_coordinates(command.item) for command in batch.commands]
        transitions = chained(
            decisions,
            [place.offset for place in places],
            chain,
            lane_name=lease.name,
            moment=batch.moment,
            names=self._names,
        )
        await apply(transaction, transitions, lease.lane)
        answers = [_answer(*each, now=batch.now) for each in zip(batch.commands, decisions, strict=True)]
        for position, decision in enumerate(decisions):
            if isinstance(decision, Refused):
                answers[position] = self._signed(answers[position], decision, batch.commands[position])
        await record(transaction, lease.lane, list(zip(places, answers, strict=True)))
        return answers, transitions

    def _signed(self, answer: Answer, decision: Refused, command: _Ready) -> Answer:
        """Add to the answer to a refused attempt its user and the digest of the code or identifier."""
        attempt, request = command.attempt, command.item.request
        if attempt is None or not (is_failure(decision) or must_wait(decision)):
            return answer
        assert isinstance(request, Command), "only a command makes an attempt"
        digest = self._attempts.digest(attempt.own.organisation, request)
        return replace(answer, digest=digest, user=attempt.own.user)

    def _tell(
        self, counted: Sequence[Counted], attempts: Sequence[Attempt | None], decisions: Sequence[Decision]
    ) -> None:
        waiting = [attempt for attempt, decision in zip(attempts, decisions, strict=True) if must_wait(decision)]
        self._attempts.tell(counted, len(waiting) - waiting.count(None))

    async def _show(self, transaction: Connection, outcomes: Sequence[Outcome]) -> Mapping[tuple[TokenKey, int], bytes]:
        return await project(
            transaction,
            [(outcome.answer.token, outcome.answer.fields) for outcome in outcomes if outcome.answer.token],
            reveal_verification_code=self._policy.reveal_verification_code,
        )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with transaction_span():
            async with self._database.transaction() as transaction:
                yield transaction

    async def _recall(self, lease: Lease, batch: Sequence[Decoded]) -> dict[tuple[int, int], Outcome]:
        """Recall earlier decisions, which can only be below ``next_offset``: in normal running this costs nothing.

        It may read before the transaction: only the owner writes there, and the transaction proves the owner.
        """
        offsets = [item.delivery.coordinates.offset for item in batch]
        if offsets[0] >= lease.next_offset:
            return {}
        async with self._database.connection() as connection:
            known = await recall_by_coordinates(connection, lease.lane, lease.name, offsets[0], offsets[-1])
        return {_where(item): _quoting(item, known[_where(item)]) for item in batch if _where(item) in known}

    async def _recall_ids(
        self, transaction: Connection, ready: _Batch, *, optimistic: bool = False
    ) -> dict[str, AppliedId]:
        """Recall ids that were applied before: from the record of commands, and once it is retired from the history."""
        presented, tokens = ready.presented, ready.tokens
        returned = needs_history(presented, tokens, self._methods.returning)
        unsure = [*needs_id_lookup(presented, tokens), *returned] if optimistic else presented
        retired = await recall_from_history(transaction, returned, self._names)
        return retired | await recall_by_id(transaction, unsure)

    def _may_be_compared(self, item: Decoded) -> bool:
        """True if a pass code may have to be compared, as far as the command itself says."""
        request = item.request
        if isinstance(request, Refused) or request.identifier is None:
            return False
        login = self._logins.verify(request.login_token)
        return isinstance(login, Claims) and self._judged_at(item, self._clock()) < login.expires_at

    async def _compare_pass_codes(
        self, lane: int, items: Sequence[Decoded], logins: Sequence[Claims | Refused]
    ) -> list[PassCodeCheck | None]:
        """Compare the pass codes of commands with an identifier and an allowed login; ``None`` for every other command.

        A command that will be refused anyhow is not worth the cost of a comparison, so logins and former failures are
        judged here before it, and again in the transaction.
        """
        wanted = [question(item.request, login) for item, login in zip(items, logins, strict=True)]
        positions = [position for position, each in enumerate(wanted) if each is not None]
        if not positions:
            return [None] * len(wanted)
        async with self._database.connection() as connection:
            moments = [self._judged_at(items[position], self._clock()) for position in positions]
            rights = [items[position].envelope.method.right for position in positions]
            authorisations = await authorise(connection, [logins[position] for position in positions], rights, moments)
            requests, callers = [items[each].request for each in positions], [each.caller for each in authorisations]
            tried = self._attempts.tried(requests, callers)
            series = await self._attempts.known(connection, tried, authorisations)
            for position, attempt in zip(positions, tried, strict=True):
                if attempt is None or wait_of(attempt, series, self._attempts.limits) > 0:
                    wanted[position] = None
            distinct = list(dict.fromkeys(each for each in wanted if each is not None))
            looked_up = await look_up(connection, distinct) if distinct else []
        checks = dict(zip(distinct, await self._pass_codes.compare(lane, looked_up), strict=True))
        return [None if each is None else checks[each] for each in wanted]

    def _judged_at(self, item: Decoded, now: float) -> float:
        """Return the moment that judges a login's expiry, in seconds since the epoch like ``now``.

        See CONTRACT, Login token.
        """
        if self._policy.expiry_at_append and item.delivery.stamped_by_broker:
            return item.delivery.coordinates.timestamp / 1000
        return now

    async def _give_up(
        self, lease: Lease, item: Decoded, first_offset: int, reason: str
    ) -> tuple[list[Answered], Lease]:
        """Answer ``INTERNAL_ERROR`` to the one command that Postgres will not take. It binds its coordinates only.

        A command that was decided before has its earlier answer, without data. A dry run is neither recorded nor
        counted. The organisation comes from the signed login: an operator who sends the dead letter again must know it.
        """
        decided = (await self._recall(lease, [item])).get(_where(item))
        if decided is not None:
            # Its answer stands. Only the access token could not be shown.
            answer = replace(decided.answer, message=f"{_text(item, UNSHOWN)}: {reason}")
            return [Answered(item, answer, None, decided.transition)], lease
        is_real = not _is_dry_run(item)
        if is_real and not self._breaker.allow_trial():
            raise BreakerOpen
        now = datetime.fromtimestamp(self._clock(), UTC)
        login = None if isinstance(item.request, Refused) else self._logins.verify(item.request.login_token)
        organisation = login.organisation if isinstance(login, Claims) else None
        code = StatusCode.INTERNAL_ERROR
        answer = Answer(_coordinates(item).command_id, code, reason, now, organisation=organisation)
        async with self._database.transaction() as transaction:
            lease, chain, _ = await _renew(transaction, lease)
            if is_real:
                await record(transaction, lease.lane, [(_coordinates(item), answer)])
            lease = await _move(transaction, lease, first_offset, _next_offset([item]), chain)
        if is_real:
            self._breaker.failed()
        return [Answered(item, answer, None)], lease


async def _renew(transaction: Connection, lease: Lease) -> tuple[Lease, Chain, datetime]:
    """Run the first statement of every batch, which proves the lane's owner and locks the lane. Raises ``LaneLost``.

    Also returns the moment of the batch's facts: no worker's clock may put one fact before another.
    """
    row = await transaction.fetchrow(statement("lanes/renew"), lease.lane, lease.owner, lease.next_offset, lease.place)
    if row is None:
        # It is further on if a part of the batch was committed before the error that led to this second try.
        raise LaneLost("postgres: another worker has taken the lane, or it is further on than this one knows")
    return replace(lease, place=row["place"]), Chain(row["chain_sequence"], row["chain_hash"]), row["moment"]


async def _move(
    transaction: Connection, lease: Lease, first_offset: int, next_offset: tuple[int, int | None], chain: Chain
) -> Lease:
    """Move on a lane that is locked, by one update: every update leaves a version of its row behind.

    ``next_offset`` is the offset to go on from, and the timestamp of the command before it, if there is one.
    """
    to = (first_offset, next_offset[0], chain.sequence, chain.hash, next_offset[1])
    row = await transaction.fetchrow(statement("lanes/move"), lease.lane, *to, lease.place)
    assert row is not None, "the lane is locked where it lies"
    return replace(lease, next_offset=row["next_offset"], place=row["place"])


def affordable(costly: Sequence[bool]) -> int:
    """Return the number of commands that make a batch, given for each if its pass code may have to be compared.

    Commands before the first pass code do not wait for it. No more are compared than take a moment, so that the
    commands behind them have their turn.
    """
    places = [place for place, each in enumerate(costly) if each]
    if places and places[0]:
        return places[0]
    return places[COMPARED] if len(places) > COMPARED else len(costly)


def _is_dry_run(item: Decoded) -> bool:
    return item.envelope.dry_run


def _next_offset(batch: Sequence[Decoded]) -> tuple[int, int]:
    """Return the offset after a batch, and the timestamp of its last command."""
    last = _coordinates(batch[-1])
    return last.offset + 1, last.timestamp


def _text(item: Decoded, what: str) -> str:
    """Return the message of an answer without data."""
    return f"the access token that this command has {item.envelope.method.done} {what}"


def _coordinates(item: Decoded) -> Coordinates:
    return item.delivery.coordinates


def _where(item: Decoded) -> tuple[int, int]:
    """Return the key of a record in the record of commands: a re-created topic repeats offsets, but not timestamps."""
    return item.delivery.coordinates.offset, item.delivery.coordinates.timestamp


def _command_id(item: Decoded, authorisation: Authorisation) -> str:
    """Return the id of a command (CONTRACT, Command). An unverified sender cannot name an organisation in it."""
    organisation = authorisation.organisation
    own = None if organisation is None else senders_id(organisation, authorisation.account, item.envelope)
    return own or item.delivery.coordinates.command_id


def _ready(verified: _Verified, authorisation: Authorisation, attempt: Attempt | None, locked: Locked) -> _Ready:
    """Present to a command the access token that it may change."""
    request, caller, method = verified.item.request, authorisation.caller, verified.item.envelope.method
    command_id = _command_id(verified.item, authorisation)
    presented: Presented | Refused
    if isinstance(request, Refused):
        presented = request
    elif isinstance(caller, Refused):
        presented = caller
    else:
        presented = present(request, caller, command_id, locked, verified.check, method=method)
    return _Ready(verified.item, authorisation, command_id, presented, attempt)


def _answer(command: _Ready, decision: Decision, *, now: datetime) -> Answer:
    command_id = command.command_id
    if isinstance(decision, Refused):
        return Answer(command_id, decision.code, decision.message, now, organisation=command.authorisation.organisation)
    presented = decision.presented
    applied = isinstance(decision, Applied)
    token = presented.token if isinstance(decision, Applied) else decision.token
    return Answer(
        command_id,
        StatusCode.OK,
        "" if token is not None else _text(command.item, GONE),
        now,
        replayed=not applied,
        token=token,
        version=decision.version if isinstance(decision, Applied) else None,
        fields=presented.fields,
        organisation=presented.token.organisation,
        digest=presented.digest,
    )


def _in_order(
    batch: Sequence[Decoded],
    recalled: Mapping[tuple[int, int], Outcome],
    answers: Sequence[Answer],
    transitions: Sequence[Transition],
) -> list[Outcome]:
    """Return the outcomes of a whole batch in its order: the recalled ones and, in between, those decided now."""
    applied = iter(transitions)
    decided = (Outcome(answer, None if answer.version is None else next(applied)) for answer in answers)
    if not recalled:
        return list(decided)
    return [recalled.get(_where(item)) or next(decided) for item in batch]


def _quoting(item: Decoded, outcome: Outcome) -> Outcome:
    """Restore the whole message of an outcome: the text that it quotes is only in the command."""
    request, answer = item.request, outcome.answer
    if not isinstance(request, Refused) or (request.code, unquoted(request.message)) != (answer.code, answer.message):
        return outcome
    return replace(outcome, answer=replace(answer, message=request.message))


def _answered(item: Decoded, outcome: Outcome, shown: Mapping[tuple[TokenKey, int], bytes]) -> Answered:
    answer = outcome.answer
    data = None if answer.token is None else shown.get((answer.token, answer.fields))
    if answer.token is not None and data is None:
        answer = replace(answer, message=_text(item, GONE))
    return Answered(item, answer, data, outcome.transition)

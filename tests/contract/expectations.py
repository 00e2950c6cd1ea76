"""The expectations of senders: one suite for the real worker and for the test kit's, so that they cannot drift.

Each expectation is a function of a world, which has the fixture's access tokens and users.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pytest

from effective_contract.client import CommandClient, CommandRefused, SetEffective
from effective_contract.codes import StatusCode
from tests.support.seeded import CODE, EFFECTIVE_CODE, IDENTIFIER, PASS_CODE, PENDING_CODE

ACCOUNT: Final = "8C1E866074D743EE834E910A28C1E582"
"""The account of the access token with ``CODE``."""
OWN: Final = "replies.shop"
SHOWN: Final = "number,life_cycle_state"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as any Kafka client reads it."""

    key: bytes | None
    value: Any
    headers: Mapping[str, bytes]


class World(Protocol):
    """A worker, and senders' ways to it. Made for one expectation."""

    def client(self, *, source: str | None = None, reply_to: str | None = None) -> CommandClient:
        """Return a client that is not open yet."""

    def login(self, user: str = "mpadmin", *, expired: bool = False, account: str | None = None) -> str:
        """Return the login token of a user of ORG1."""

    async def new_code(self) -> str:
        """Make an access token that is not effective, and return its authentication code."""

    async def exchange(self, value: bytes, headers: Mapping[str, bytes], key: bytes | None = None) -> Answer:
        """Send one record to the commands topic, and return the answer to it."""


async def refusal(world: World, client: CommandClient, **members: Any) -> CommandRefused:
    with pytest.raises(CommandRefused) as caught:
        await client.set_effective(**{"token": world.login(), **members})
    return caught.value


async def done(world: World, client: CommandClient, **members: Any) -> SetEffective:
    return await client.set_effective(**{"token": world.login(), "fields_set": SHOWN, **members})


async def a_command_is_applied_once_under_its_id(world: World) -> None:
    code, other = await world.new_code(), await world.new_code()
    async with world.client(source="/shop") as client:
        first = await done(world, client, authentication_code=code, ce_id="order 7")
        again = await done(world, client, authentication_code=code, ce_id="order 7")
        same = await done(
            world, client, authentication_code=code, ce_id="order 7", fields_set=" life_cycle_state,number"
        )
        duplicate = await refusal(world, client, authentication_code=other, ce_id="order 7", fields_set=SHOWN)
        fewer = await refusal(world, client, authentication_code=code, ce_id="order 7", fields_set="number")
        late = await refusal(world, client, authentication_code=code)

    assert first.data["life_cycle_state"] == again.data["life_cycle_state"] == "EFFECTIVE"
    assert (first.replayed, again.replayed, same.replayed) == (False, True, True)
    assert first.command_id == again.command_id == "ce:ORG1:%2Fshop:order%207"
    assert first.data.keys() == {"number", "life_cycle_state"}
    assert duplicate.code == fewer.code == StatusCode.DUPLICATE_REQUEST
    assert duplicate.message == "this id was applied for another access token or other fields"
    assert (late.code, late.message) == (StatusCode.INVALID_LIFE_CYCLE_STATE, "the access token is EFFECTIVE")


async def a_refused_id_is_judged_afresh(world: World) -> None:
    code = await world.new_code()
    async with world.client(source="/shop") as client:
        refused = await refusal(world, client, authentication_code="none such", ce_id="order-8")
        applied = await done(world, client, authentication_code=code, ce_id="order-8")

    assert refused.code == StatusCode.ACCESS_TOKEN_NOT_FOUND
    assert refused.message == "no access token of yours has this authentication_code"
    assert (applied.replayed, applied.command_id) == (False, refused.command_id)


async def a_dry_run_says_what_would_be_and_changes_nothing(world: World) -> None:
    code = await world.new_code()
    async with world.client(source="/shop") as client:
        for _ in range(2):
            rehearsed = await done(world, client, authentication_code=code, ce_id="order-9", dry_run=True)
            assert (rehearsed.data["life_cycle_state"], rehearsed.replayed, rehearsed.dry_run) == (
                "EFFECTIVE",
                False,
                True,
            )
        real = await done(world, client, authentication_code=code, ce_id="order-9")
        again = await done(world, client, authentication_code=code, ce_id="order-9", dry_run=True)
        refused = await refusal(world, client, authentication_code=code, dry_run=True)

    assert (real.replayed, real.dry_run) == (False, False)
    assert (again.replayed, again.dry_run) == (True, True)
    assert (refused.code, refused.dry_run) == (StatusCode.INVALID_LIFE_CYCLE_STATE, True)


async def a_login_is_judged_before_the_access_token(world: World) -> None:
    cases = {
        "no login at all": (StatusCode.INVALID_TOKEN, "the login token cannot be verified"),
        world.login("leaver"): (StatusCode.INVALID_TOKEN, "the login token's user is not known or not active"),
        world.login(expired=True): (StatusCode.EXPIRED_TOKEN, "log in again and send the command again"),
        world.login("reader"): (StatusCode.ACCESS_DENIED, "the user lacks the right ACCESS_TOKENS.SET_EFFECTIVE"),
    }
    async with world.client(source="/shop") as client:
        for token, told in cases.items():
            refused = await refusal(world, client, token=token, authentication_code="none such", ce_id="order-10")
            assert (refused.code, refused.message) == told
            is_known = refused.code != StatusCode.INVALID_TOKEN
            assert refused.command_id.startswith("ce:ORG1:%2Fshop:order-10" if is_known else "rec:")
            assert refused.needs_new_login == (refused.code in {StatusCode.INVALID_TOKEN, StatusCode.EXPIRED_TOKEN})


async def an_identifier_goes_with_its_pass_code(world: World) -> None:
    told = "identifier and pass_code do not go together"
    async with world.client() as client:
        for identifier, pass_code in ((IDENTIFIER, "wrong"), ("nobody@example.com", PASS_CODE)):
            refused = await refusal(world, client, identifier=identifier, pass_code=pass_code)
            assert (refused.code, refused.message) == (StatusCode.INVALID_CREDENTIALS, told)
        applied = await done(world, client, identifier=IDENTIFIER, pass_code=PASS_CODE, fields_set="identifier")
        assert applied.data == {"identifier": IDENTIFIER}


async def a_consumer_application_sees_its_own_accounts_access_tokens_only(world: World) -> None:
    other = await world.new_code()
    consumer = world.login(account=ACCOUNT)
    async with world.client(source="/app") as client:
        refused = await refusal(world, client, token=consumer, authentication_code=other)
        applied = await done(world, client, token=consumer, authentication_code=CODE, ce_id="1", fields_set="number")

    assert refused.code == StatusCode.ACCESS_TOKEN_NOT_FOUND
    assert applied.data == {"number": "AT0000000671"}
    assert applied.command_id == f"ce:ORG1:{ACCOUNT}:%2Fapp:1"


async def only_a_token_that_is_not_effective_becomes_effective(world: World) -> None:
    async with world.client() as client:
        for code, state in ((EFFECTIVE_CODE, "EFFECTIVE"), (PENDING_CODE, "PENDING_VERIFICATION")):
            refused = await refusal(world, client, authentication_code=code)
            assert (refused.code, refused.message) == (
                StatusCode.INVALID_LIFE_CYCLE_STATE,
                f"the access token is {state}",
            )


async def all_fields_come_if_none_are_named(world: World) -> None:
    code = await world.new_code()
    async with world.client() as client:
        whole = await done(world, client, authentication_code=code, fields_set=None)

    assert len(whole.data) == 30
    log = whole.data["log_information"]
    assert log.updated_date is not None
    assert log.created_by_user is None
    assert whole.data["verification_code"] is None


async def an_answer_goes_to_a_reply_topic_that_the_worker_allows(world: World) -> None:
    code = await world.new_code()
    async with world.client(source="/shop", reply_to=OWN) as client:
        applied = await done(world, client, authentication_code=code)
        refused = await refusal(world, client, authentication_code="none such")

    assert applied.data["life_cycle_state"] == "EFFECTIVE"
    assert refused.code == StatusCode.ACCESS_TOKEN_NOT_FOUND


def _written(token: str, code: str, **members: Any) -> bytes:
    return json.dumps({"token": token, "access_token_identifier": {"authentication_code": code}, **members}).encode()


async def what_a_sender_brings_comes_back(world: World) -> None:
    code = await world.new_code()
    headers = {
        "correlation_id": b"\x00\xff",
        "kafka_correlationId": b"7",
        "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": b"shop=1",
        "unknown": b"passed over",
    }
    answer = await world.exchange(
        _written(world.login(), code, fields_set="number", request_unique_identifier="r 1"), headers, b"card-1"
    )

    assert answer.key == b"card-1"
    assert answer.value["status"] == {"code": "OK", "description": "", "message": ""}
    assert (answer.headers["correlation_id"], answer.headers["kafka_correlationId"]) == (b"\x00\xff", b"7")
    assert answer.headers["traceparent"].startswith(b"00-0af7651916cd43dd8448eb211c80319c-")
    assert answer.headers["tracestate"] == b"shop=1"
    assert answer.headers["command_id"] == b"req:ORG1:r%201"
    assert answer.headers["causation_id"] == b"r 1"
    assert "unknown" not in answer.headers


async def a_trace_of_a_later_version_is_continued_in_ours(world: World) -> None:
    later = b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"
    answer = await world.exchange(_written(world.login(), "none such"), {"traceparent": later})

    _, _, span, _ = answer.headers["traceparent"].split(b"-")
    assert answer.headers["traceparent"] == b"00-0af7651916cd43dd8448eb211c80319c-%b-01" % span
    assert span != b"b7ad6b7169203331"


async def a_whole_cloud_event_is_a_command(world: World) -> None:
    code = await world.new_code()
    event = {
        "specversion": "1.0",
        "id": "event-1",
        "source": "/crm",
        "type": "access_token.set_effective.v1",
        "data": json.loads(_written(world.login(), code, fields_set="life_cycle_state")),
    }
    content = {"content-type": b"application/cloudevents+json"}
    answer = await world.exchange(json.dumps(event).encode(), content)
    bare = await world.exchange(json.dumps(event).encode(), {})

    assert answer.value["data"] == {"life_cycle_state": "EFFECTIVE"}
    assert answer.headers["command_id"] == b"ce:ORG1:%2Fcrm:event-1"
    assert bare.value["status"]["code"] == StatusCode.MISSING_PARAMETER
    assert "content-type: application/cloudevents+json" in bare.value["status"]["message"]


async def a_topic_to_which_no_answers_may_be_sent_is_refused(world: World) -> None:
    told = "the header reply_to names a topic to which no answers may be sent"
    answer = await world.exchange(_written(world.login(), "none such"), {"reply_to": b"somebody.elses"})

    assert answer.value["status"]["code"] == StatusCode.INVALID_PARAMETER
    assert answer.value["status"]["message"] == told


EXPECTATIONS: Final[tuple[Callable[[World], Awaitable[None]], ...]] = (
    a_command_is_applied_once_under_its_id,
    a_refused_id_is_judged_afresh,
    a_dry_run_says_what_would_be_and_changes_nothing,
    a_login_is_judged_before_the_access_token,
    an_identifier_goes_with_its_pass_code,
    a_consumer_application_sees_its_own_accounts_access_tokens_only,
    only_a_token_that_is_not_effective_becomes_effective,
    all_fields_come_if_none_are_named,
    an_answer_goes_to_a_reply_topic_that_the_worker_allows,
    what_a_sender_brings_comes_back,
    a_trace_of_a_later_version_is_continued_in_ours,
    a_whole_cloud_event_is_a_command,
    a_topic_to_which_no_answers_may_be_sent_is_refused,
)

"""Login tokens: which are accepted, which are refused, and that no input makes the verification raise."""

import json
import math
from collections.abc import Callable
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from effective_contract.codes import StatusCode
from tests.support.clocks import Clock
from tests.support.logins import SECRET, login_token, segment, signed
from worker.journey.authorise import CACHE_SECONDS, CACHED_LOGINS, SKEW_SECONDS, Logins, key_fingerprint
from worker.journey.model import Claims, Refused

NOW: Final = 1_700_000_000
OTHER_SECRET: Final = "another secret of the tests, just as long as the first"
GOOD: Final[dict[str, Any]] = {
    "jti": "login-1",
    "usr": "mpadmin",
    "org": "ORG1",
    "oun": "1",
    "iat": NOW,
    "exp": NOW + 7200,
}


def with_claims(**changes: Any) -> str:
    """Return ``GOOD`` with these claims changed; ``...`` leaves one out. The JSON lets ``NaN`` through."""
    claims = {name: claim for name, claim in {**GOOD, **changes}.items() if claim is not ...}
    return signed(json.dumps(claims).encode())


def verified(token: str, *secrets: str, now: float = NOW) -> Claims | Refused:
    return Logins(secrets or (SECRET,), Clock(now)).verify(token)


def assert_refused(answer: Claims | Refused, says: str = "") -> None:
    assert isinstance(answer, Refused)
    assert answer.code is StatusCode.INVALID_TOKEN
    assert says in answer.message


def test_a_good_token_gives_its_claims() -> None:
    assert verified(with_claims()) == Claims("login-1", "mpadmin", "ORG1", "1", float(NOW + 7200), None)


def test_a_consumer_applications_token_gives_its_account() -> None:
    claims = verified(with_claims(cii="shop", acr="ACR1"))

    assert isinstance(claims, Claims)
    assert claims.account == "ACR1"


def test_unknown_claims_are_ignored() -> None:
    assert isinstance(verified(with_claims(aud="other", iss=7, sub=[], extra={})), Claims)


def test_a_token_is_good_from_nbf_on_with_a_minutes_leeway() -> None:
    for nbf in (0, NOW, str(NOW), NOW + 60, None):
        assert isinstance(verified(with_claims(nbf=nbf)), Claims)
    assert_refused(verified(with_claims(nbf=NOW + 60.001)), "not valid yet")
    assert_refused(verified(with_claims(nbf=str(NOW + 61))), "not valid yet")


def test_who_is_too_early_is_good_later() -> None:
    clock, token = Clock(NOW), with_claims(nbf=NOW + 100)
    logins = Logins((SECRET,), clock)
    assert_refused(logins.verify(token), "not valid yet")
    clock.now += 40
    assert isinstance(logins.verify(token), Claims)


def test_logins_that_no_key_has_signed_are_warned_of_once_a_minute_with_the_keys_that_are_here() -> None:
    """A worker with the wrong keys refuses everybody, and is healthy otherwise."""
    clock = Clock(NOW)
    logins = Logins((OTHER_SECRET,), clock)
    with capture_logs() as logged:
        for seconds in (0, 30, 20, 20):
            clock.now += seconds
            assert_refused(logins.verify(with_claims()), "cannot be verified")
        logins.verify("no token")
    assert [(each["event"], each["logins"]) for each in logged] == [("logins_unverified", 1), ("logins_unverified", 3)]
    assert logged[0]["keys"] == [key_fingerprint(OTHER_SECRET)]
    assert OTHER_SECRET not in str(logged)


def test_keys_are_told_apart_by_their_fingerprints_alone() -> None:
    prints = {key_fingerprint(key) for key in (SECRET, OTHER_SECRET, SECRET + " ")}
    assert len(prints) == 3
    assert all(len(each) == 8 for each in prints)


def test_a_token_lives_for_two_hours_and_no_longer() -> None:
    assert isinstance(verified(with_claims(iat=NOW, exp=NOW + 7200)), Claims)
    assert_refused(verified(with_claims(iat=NOW, exp=NOW + 7201)), "lives for longer than 7200 seconds")
    assert_refused(verified(with_claims(iat=str(NOW), exp=str(NOW + 7200.5))), "lives for longer")


def test_another_longest_life_may_be_set() -> None:
    logins = Logins((SECRET,), Clock(NOW), longest_seconds=60)
    assert isinstance(logins.verify(with_claims(iat=NOW, exp=NOW + 60)), Claims)
    assert_refused(logins.verify(with_claims(iat=NOW, exp=NOW + 61)), "lives for longer than 60 seconds")


@pytest.mark.parametrize("claim", ["cards", ["cards"], ["other", "cards"]])
def test_a_token_for_the_audience_that_is_set_is_good(claim: object) -> None:
    assert isinstance(Logins((SECRET,), Clock(NOW), audience="cards").verify(with_claims(aud=claim)), Claims)


@pytest.mark.parametrize("claim", [..., None, "", "other", "cards ", ["other"], [], {"cards": 1}, 7, [["cards"]]])
def test_one_for_any_other_is_not(claim: object) -> None:
    assert_refused(Logins((SECRET,), Clock(NOW), audience="cards").verify(with_claims(aud=claim)), "another audience")


@pytest.mark.parametrize("name", ["jti", "usr", "org", "oun", "iat", "exp"])
@pytest.mark.parametrize("claim", [..., None])
def test_each_claim_is_mandatory(name: str, claim: object) -> None:
    assert_refused(verified(with_claims(**{name: claim})), name)


@pytest.mark.parametrize("name", ["jti", "usr", "org", "oun"])
@pytest.mark.parametrize(
    "claim",
    [1, 1.5, True, False, [], ["a"], {}, "", "x" * 256, "a\0b", "\0", "\ud800", "a\udfffb", "\udc00\ud800"],
    ids=ascii,
)
def test_a_claim_that_is_no_usable_string_is_refused(name: str, claim: object) -> None:
    assert_refused(verified(with_claims(**{name: claim})), name)


@pytest.mark.parametrize("name", ["cii", "acr"])
@pytest.mark.parametrize("claim", [1, True, "", "x" * 256, "\0", "\ud800", []], ids=ascii)
def test_the_claims_of_a_consumer_application_are_strings_too(name: str, claim: object) -> None:
    both = {"cii": "shop", "acr": "ACR1", name: claim}

    assert_refused(verified(with_claims(**both)), name)


@pytest.mark.parametrize("alone", [{"cii": "shop"}, {"acr": "ACR1"}, {"cii": "shop", "acr": None}])
def test_cii_and_acr_go_together(alone: dict[str, Any]) -> None:
    assert_refused(verified(with_claims(**alone)), "go together")


@pytest.mark.parametrize("longest", ["x" * 255, "ü" * 255, "👍" * 255])
def test_255_characters_are_not_too_long(longest: str) -> None:
    assert isinstance(verified(with_claims(usr=longest)), Claims)


@pytest.mark.parametrize(
    ("claim", "seconds"),
    [
        (NOW + 1, NOW + 1.0),
        (NOW + 0.5, NOW + 0.5),
        (str(NOW + 1), NOW + 1.0),
        (f"{NOW}.25", NOW + 0.25),
        ("0", 0.0),
        (0, 0.0),
        ("0000000000007", 7.0),
    ],
)
def test_moments_may_be_numbers_or_numeric_strings(claim: object, seconds: float) -> None:
    claims = verified(with_claims(exp=claim))

    assert isinstance(claims, Claims)
    assert claims.expires_at == seconds


@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
@pytest.mark.parametrize(
    "claim",
    [
        True,
        False,
        -1,
        -0.5,
        1e15,
        10**400,
        -(10**400),
        math.nan,
        math.inf,
        -math.inf,
        "",
        " ",
        "NaN",
        "inf",
        "1e9",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1_000",
        "0x1",
        "1.",
        ".5",
        "1,5",
        "9" * 16,
        "\u0661\u0662",
        "\u00b2",
        "1\n",
        "1\0",
        "\ud800",
        "1.1.1",
        [],
        [1],
        {},
        {"a": 1},
    ],
    ids=lambda claim: ascii(claim)[:24],
)
def test_a_moment_that_is_none_is_refused(name: str, claim: object) -> None:
    assert_refused(verified(with_claims(**{name: claim})), name)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" * 5000])
def test_a_number_that_only_a_json_text_can_hold_is_refused(number: bytes) -> None:
    payload = json.dumps({**GOOD, "exp": "here"}).encode().replace(b'"here"', number)

    assert_refused(verified(signed(payload)))


def test_a_token_may_be_issued_a_minute_ahead_and_no_more() -> None:
    assert SKEW_SECONDS == 60
    assert isinstance(verified(with_claims(iat=NOW + 60)), Claims)
    assert isinstance(verified(with_claims(iat=str(NOW + 60))), Claims)
    assert_refused(verified(with_claims(iat=NOW + 60.001)), "future")
    assert_refused(verified(with_claims(iat=str(NOW + 61))), "future")


def test_expiry_is_not_judged_here_because_the_record_may_carry_the_moment() -> None:
    assert isinstance(verified(with_claims(iat=1, exp=2)), Claims)


# --- signature and algorithm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_an_unsigned_token_is_refused(algorithm: str, signature: str) -> None:
    header = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
    token = f"{segment(header)}.{segment(json.dumps(GOOD).encode())}.{signature}"

    assert_refused(verified(token))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_hash_is_refused_though_the_secret_is_right(algorithm: str) -> None:
    long_secret = SECRET * 3

    assert_refused(verified(jwt.encode(GOOD, long_secret, algorithm=algorithm), long_secret))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "hs256", "", " HS256", None, 5, [], ["HS256"], {}])
def test_only_hs256_is_accepted_however_the_signature_was_made(algorithm: object) -> None:
    header = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()

    assert_refused(verified(signed(json.dumps(GOOD).encode(), header)))


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"",
        b'{"alg":"HS256","crit":["exp"]}',
        b'{"alg":"HS256","b64":false,"crit":["b64"]}',
        b'{"alg":"HS256","kid":7}',
        b'{"alg":"HS256","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda header: repr(header[:32]),
)
def test_an_odd_header_is_refused(header: bytes) -> None:
    assert_refused(verified(signed(json.dumps(GOOD).encode(), header)))


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b'"text"', b"7", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"exp":1e400}'],
    ids=lambda payload: repr(payload[:16]),
)
def test_a_payload_that_is_no_object_of_claims_is_refused(payload: bytes) -> None:
    assert_refused(verified(signed(payload)))


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b.c", "a", " ", "\0", "é.é.é", "👍", "{{token}}", "x" * 4096, "\ud800", "a.\udfff.c"],
    ids=lambda token: ascii(token)[:24],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    assert_refused(verified(token))


def test_a_changed_payload_breaks_the_signature() -> None:
    header, _, signature = with_claims().split(".")

    assert_refused(verified(f"{header}.{segment(json.dumps({**GOOD, 'org': 'ORG2'}).encode())}.{signature}"))


def test_a_strangers_signature_is_refused() -> None:
    assert_refused(verified(login_token(secret=OTHER_SECRET), now=NOW * 2))


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_every_active_secret_is_good_in_any_order() -> None:
    old, new = login_token(secret=SECRET), login_token(secret=OTHER_SECRET)
    for secrets in ((SECRET, OTHER_SECRET), (OTHER_SECRET, SECRET)):
        logins = Logins(secrets, Clock(NOW * 2))
        assert isinstance(logins.verify(old), Claims)
        assert isinstance(logins.verify(new), Claims)


def test_a_secret_that_was_taken_away_is_good_no_longer() -> None:
    token = login_token(secret=SECRET)

    assert isinstance(verified(token, OTHER_SECRET, SECRET, now=NOW * 2), Claims)
    assert_refused(verified(token, OTHER_SECRET, now=NOW * 2))


def test_claims_under_the_right_one_of_several_secrets_are_judged_all_the_same() -> None:
    assert_refused(verified(with_claims(exp=True), OTHER_SECRET, SECRET), "exp")


def test_without_a_secret_nothing_is_good() -> None:
    assert_refused(Logins((), Clock(NOW)).verify(with_claims()))


# --- the cache --------------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the tokens whose signature is verified from now on."""
    seen: list[str] = []
    decode: Callable[..., dict[str, Any]] = jwt.decode

    def watched(token: str, *args: Any, **options: Any) -> dict[str, Any]:
        seen.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", watched)
    return seen


def test_a_good_signature_is_verified_once_in_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, clock, token = counted(monkeypatch), Clock(NOW), with_claims()
    logins = Logins((SECRET,), clock)

    first = logins.verify(token)
    clock.now += CACHE_SECONDS - 0.001
    assert logins.verify(token) == first
    assert seen == [token]
    clock.now += 0.001

    assert logins.verify(token) == first
    assert seen == [token, token]


def test_a_bad_token_is_never_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, clock, token = counted(monkeypatch), Clock(NOW), with_claims(iat=NOW + 61)
    logins = Logins((SECRET,), clock)

    assert_refused(logins.verify(token))
    clock.now += 1

    assert isinstance(logins.verify(token), Claims)
    assert seen == [token, token]


def test_a_remembered_token_still_tells_its_own_expiry() -> None:
    clock, token = Clock(NOW), with_claims(exp=NOW + 1)
    logins = Logins((SECRET,), clock)
    logins.verify(token)
    clock.now += 2

    claims = logins.verify(token)

    assert isinstance(claims, Claims)
    assert claims.expires_at < clock.now


def test_what_is_remembered_is_bounded_and_holds_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.journey.authorise.CACHED_LOGINS", 8)
    logins = Logins((SECRET,), Clock(NOW))
    tokens = [with_claims(jti=str(number)) for number in range(40)]
    for token in tokens:
        logins.verify(token)
        assert len(logins._verified) <= 8
    assert CACHED_LOGINS >= 1024
    assert not any(token.encode() in digest for token in tokens for digest in logins._verified)
    assert not any(token in repr(logins) + repr(logins._verified) for token in tokens)


# --- nothing raises ---------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=()), max_size=300)
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=6,
)
good_or_any = st.fixed_dictionaries(
    {}, optional={name: st.one_of(st.just(claim), any_json) for name, claim in {**GOOD, "cii": "a", "acr": "b"}.items()}
)


@given(good_or_any)
def test_no_claims_make_the_verification_raise_and_good_ones_fit_postgres(claims: dict[str, Any]) -> None:
    answer = verified(signed(json.dumps(claims).encode()))

    if isinstance(answer, Refused):
        assert answer.code is StatusCode.INVALID_TOKEN
        return
    texts = [answer.jti, answer.username, answer.organisation, answer.unit, answer.account or "none"]
    assert all(0 < len(text.encode()) <= 4 * 255 and "\0" not in text for text in texts)
    assert 0 <= answer.expires_at < 1e15


@given(any_text)
def test_no_text_makes_the_verification_raise(token: str) -> None:
    assert_refused(verified(token))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_no_bytes_under_a_good_signature_make_the_verification_raise(header: bytes, payload: bytes) -> None:
    assert_refused(verified(signed(payload, header)))


@given(good_or_any)
def test_a_refusal_says_nothing_of_what_the_token_holds(claims: dict[str, Any]) -> None:
    canary = "canary-4f1d"
    for name in claims:
        answer = verified(signed(json.dumps({**claims, name: {canary: [canary]}}).encode()))
        assert isinstance(answer, Refused)
        assert canary not in answer.message

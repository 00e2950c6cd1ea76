"""The access token as senders see it: 30 top-level fields, objects whole, missing values ``null``.

See CONTRACT, Access token.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from effective_contract.base import STRICT, Schema
from effective_contract.states import LifeCycleState

_DATE_PATTERN: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}$"


def _a_moment_that_exists(text: str) -> str:
    datetime.fromisoformat(text)
    return text


TokenDate = Annotated[str, Field(pattern=_DATE_PATTERN), AfterValidator(_a_moment_that_exists)]
"""``YYYY-MM-DDThh:mm:ss``, UTC."""
TokenFloat = Annotated[float, Field(allow_inf_nan=False)]
# A strict enumeration refuses plain strings; this one takes a member's value, and nothing else.
TokenState = Annotated[LifeCycleState, Field(strict=False)]
Month = Annotated[int, Field(ge=1, le=12)]
Day = Annotated[int, Field(ge=1, le=31)]
Year = Annotated[int, Field(ge=1, le=9999)]


class MonthDay(Schema):
    """A day that returns every year. Always present, with nulls inside where it is not known."""

    month: Month | None
    day: Day | None


class CalendarDate(Schema):
    """A date of which every part may be unknown. Always present, with nulls inside where it is not known."""

    month: Month | None
    year: Year | None
    day: Day | None


class Country(Schema):
    alternative_code: str | None
    three_character_code: str | None
    name: str | None
    id: str
    two_character_code: str | None


class Industry(Schema):
    id: str
    name: str | None
    alternative_code: str | None


class IndustrySector(Schema):
    id: str
    name: str | None
    alternative_code: str | None


class Classification(Schema):
    id: str
    name: str | None
    alternative_code: str | None


class CompanyProfile(Schema):
    vat_registration_number: str | None
    registration_number: str | None


class Demographics(Schema):
    name_day: MonthDay
    id_number: str | None
    gender: Literal["MALE", "FEMALE"] | None
    country_of_residence: Country | None
    date_of_birth: CalendarDate
    industry_sector: IndustrySector | None
    passport_number: str | None
    industry: Industry | None
    social_security_number: str | None
    id_issued_by_country: Country | None
    passport_issued_by_country: Country | None


class AccountOwner(Schema):
    company_profile: CompanyProfile | None
    company_name: str | None
    name: str | None
    last_name: str | None
    id: str
    life_cycle_state: Literal["MARKETING", "FINANCIAL"] | None
    middle_name: str | None
    title: str | None
    type: Literal["PERSON", "COMPANY"] | None
    first_name: str | None
    demographics: Demographics | None


class AccountsReceivable(Schema):
    number: str | None
    name: str | None
    id: str
    life_cycle_state: Literal["ACTIVE", "SUSPENDED", "TERMINATED"] | None
    account_owner: AccountOwner | None


class RewardsParticipant(Schema):
    number: str | None
    accounts_receivable: AccountsReceivable | None
    id: str
    life_cycle_state: Literal["EFFECTIVE", "TERMINATED"] | None


class User(Schema):
    id: str
    username: str | None
    person_name: str | None
    email: str | None


class Unit(Schema):
    id: str
    name: str | None
    group_name: str | None
    community_name: str | None
    alternative_code: str | None
    description: str | None


class LogInformation(Schema):
    """Always an object of its six members."""

    created_date: TokenDate | None
    updated_date: TokenDate | None
    created_by_user: User | None
    updated_by_user: User | None
    created_by_unit: Unit | None
    updated_by_unit: Unit | None


class AccessToken(Schema):
    """A whole access token."""

    id: str
    number: str
    life_cycle_state: TokenState
    authentication_code: str | None
    identifier: str | None
    card_masked_number: str | None
    card_last_4_digits: str | None
    verification_code: str | None
    verified_date: TokenDate | None
    verified_by_user: User | None
    udf_string_1: str | None
    udf_string_2: str | None
    udf_string_3: str | None
    udf_string_4: str | None
    udf_string_5: str | None
    udf_string_6: str | None
    udf_string_7: str | None
    udf_string_8: str | None
    udf_float_1: TokenFloat | None
    udf_float_2: TokenFloat | None
    udf_float_3: TokenFloat | None
    udf_float_4: TokenFloat | None
    udf_date_1: TokenDate | None
    udf_date_2: TokenDate | None
    udf_date_3: TokenDate | None
    udf_date_4: TokenDate | None
    classification: Classification | None
    accounts_receivable: AccountsReceivable | None
    rewards_participant: RewardsParticipant | None
    log_information: LogInformation


# The same members again, because "not asked for" and "null" differ: a member that is present has the type from above.
@with_config(STRICT)
class AccessTokenData(TypedDict, total=False):
    """The asked-for fields of an access token: any subset of :class:`AccessToken`, each member whole."""

    id: str
    number: str
    life_cycle_state: TokenState
    authentication_code: str | None
    identifier: str | None
    card_masked_number: str | None
    card_last_4_digits: str | None
    verification_code: str | None
    verified_date: TokenDate | None
    verified_by_user: User | None
    udf_string_1: str | None
    udf_string_2: str | None
    udf_string_3: str | None
    udf_string_4: str | None
    udf_string_5: str | None
    udf_string_6: str | None
    udf_string_7: str | None
    udf_string_8: str | None
    udf_float_1: TokenFloat | None
    udf_float_2: TokenFloat | None
    udf_float_3: TokenFloat | None
    udf_float_4: TokenFloat | None
    udf_date_1: TokenDate | None
    udf_date_2: TokenDate | None
    udf_date_3: TokenDate | None
    udf_date_4: TokenDate | None
    classification: Classification | None
    accounts_receivable: AccountsReceivable | None
    rewards_participant: RewardsParticipant | None
    log_information: LogInformation


FIELD_NAMES: Final[tuple[str, ...]] = tuple(AccessToken.model_fields)
"""The 30 top-level fields in the order of CONTRACT, Access token: field ``i`` is bit ``1 << i`` of a mask."""
ALL_FIELDS: Final = (1 << len(FIELD_NAMES)) - 1
_BITS: Final = {name: 1 << position for position, name in enumerate(FIELD_NAMES)}


class UnknownField(ValueError):
    """No top-level field has the requested ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__("unknown field name")
        self.name = name


def fields_mask(names: Iterable[str]) -> int:
    """Return the bit mask of field names. Raises :class:`UnknownField` for the first that is none."""
    mask = 0
    for name in names:
        bit = _BITS.get(name)
        if bit is None:
            raise UnknownField(name)
        mask |= bit
    return mask


@lru_cache(maxsize=256)
def field_names(mask: int) -> tuple[str, ...]:
    """Return the field names of a bit mask, in the order of CONTRACT, Access token."""
    return tuple(name for name, bit in _BITS.items() if mask & bit)

"""The access tokens of the seed fixture that the tests work with, all of ORG1, and their user."""

from typing import Final

CODE: Final = "99021047380"
"""Code of a token that is not effective; another organisation also has this code."""
EFFECTIVE_CODE: Final = "99021047381"
PENDING_CODE: Final = "99021047382"
CODE_OF_IDENTIFIER: Final = "99021047383"
IDENTIFIER: Final = "polina@example.com"
PASS_CODE: Final = "correct horse 7"
CARD_CODE: Final = "99021047384"
TOKEN_ID: Final = "4D1F0C6E9B7A4F5C8E2B7A90D3C61F55"
"""Id of the token with ``CODE``."""
OTHER_TOKEN_ID: Final = "9BE34643165555219ACA29F33D3D84C6"
"""Id of the token with ``CARD_CODE``."""
CONTACT: Final = "F038161F36C845B98CEE7361A8C92157"
"""The contact that ``IDENTIFIER`` names."""
USER_ID: Final = "6E0B9E9C5C7E4B0F9C7A5D3C2B1A0F01"

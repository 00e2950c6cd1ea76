"""The contract as a page: complete, escaped, and with working links."""

import re
from html.parser import HTMLParser
from typing import Any, Final

import pytest

from effective_contract.codes import StatusCode
from worker.operations.contract.asyncapi import asyncapi
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.page import page

WITHOUT_END: Final = {"meta", "br"}


class Outline(HTMLParser):
    """The targets of a page's links, its anchors, and the elements still open at the end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links |= {given["href"] or ""} if "href" in given else set()
        self.places += [given["id"] or ""] if "id" in given else []
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi(Deployment())


@pytest.fixture(scope="module")
def text(document: dict[str, Any]) -> str:
    return page(document)


def test_its_elements_are_closed_and_its_links_lead_somewhere(text: str) -> None:
    outline = Outline(text)
    assert (outline.open, outline.wrong) == ([], [])
    assert len(outline.places) == len(set(outline.places))
    assert outline.links == {f"#{place}" for place in outline.places} | {"asyncapi.json"}


def test_it_shows_every_channel_message_member_status_and_example(document: dict[str, Any], text: str) -> None:
    components = document["components"]
    members = {member for schema in components["schemas"].values() for member in schema.get("properties", ())}
    addresses = {channel["address"] for channel in document["channels"].values()} - {None}
    examples = {each["summary"] for message in components["messages"].values() for each in message["examples"]}
    assert len(members) > 100
    assert not {each for each in (*members, *addresses, *StatusCode) if f"<code>{each}</code>" not in text}
    assert not {each for each in examples if each not in text}


def test_what_is_written_in_the_document_stays_text(document: dict[str, Any]) -> None:
    bad = "<script>alert('x')</script>\"&"

    def spoilt(part: Any, name: str = "") -> Any:
        if isinstance(part, dict):
            return {each: spoilt(value, each) for each, value in part.items()}
        if isinstance(part, list):
            return [spoilt(each, name) for each in part]
        return bad if isinstance(part, str) and name not in {"$ref", "action", "type", "format"} else part

    text = page(spoilt(document))
    assert bad not in text
    assert re.search(r"<script", text) is None
    assert "&lt;script&gt;" in text

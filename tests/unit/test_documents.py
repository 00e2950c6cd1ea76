"""Documents: links resolve, prose fits its width, and the site can be built from them."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from deploy import make_site
from deploy.make_site import PAGES, anchors_of, is_elsewhere, links_of, page_of, place_of, prose_of

ROOT: Final = Path(__file__).parents[2]
FIRST_READ: Final = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
COLUMNS: Final = 100


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def broken_links(document: str) -> Iterator[str]:
    for target in links_of(text_of(document)):
        if is_elsewhere(target):
            continue
        place, anchor = place_of(document, target), target.partition("#")[2]
        if not (ROOT / place).exists() or (anchor and anchor not in anchors_of(text_of(place))):
            yield target


@pytest.mark.parametrize("document", PAGES)
def test_a_link_leads_to_a_file_and_a_heading(document: str) -> None:
    assert list(broken_links(document)) == []


def test_a_heading_has_one_anchor() -> None:
    for document in PAGES:
        anchors = anchors_of(text_of(document))
        linked = [target.partition("#")[2] for other in PAGES for target in links_of(text_of(other)) if "#" in target]
        assert {anchor for anchor in anchors if anchors.count(anchor) > 1}.isdisjoint(linked), document


@pytest.mark.parametrize("document", FIRST_READ)
def test_prose_fits_its_width(document: str) -> None:
    wide = [line for line in prose_of(text_of(document)).splitlines() if len(line) > COLUMNS]
    assert [line for line in wide if not line.startswith("<!--") and "](" not in line] == []


def test_every_page_of_the_docs_is_in_the_site_and_in_readme() -> None:
    assert set(FIRST_READ) <= PAGES.keys()
    linked = {place_of("README.md", target) for target in links_of(text_of("README.md"))}
    assert {document for document in FIRST_READ if document.startswith("docs/")} - linked == {"docs/index.md"}


def test_anchors_are_those_of_github() -> None:
    assert anchors_of("## 9. Settings (only; `NAME_FILE` …)\n\n```sh\n# no heading\n```\n### A [b](c)\n") == [
        "9-settings-only-name_file-",
        "a-b",
    ]


def test_a_document_becomes_a_page_with_links_to_pages() -> None:
    text = "# T\nA [contract](../schemas/CONTRACT.md#topics), [code](../worker/cli) and\n- one\n<!-- run -->\n"
    assert page_of("docs/x.md", text) == (
        "# T { #t }\nA [contract](contract.md#topics), code (`worker/cli`) and\n\n- one\n"
    )
    nested = "1. one:\n\n   ```sh\n   two\n   ```\n\n   three\n| | |\n"
    assert page_of("docs/x.md", nested) == "1. one:\n\n        two\n\n    three\n| &nbsp; | &nbsp; |\n"
    assert page_of("docs/x.md", "```md\n[a](../README.md)\n```\n") == "```md\n[a](../README.md)\n```\n"


def test_what_a_page_loads_from_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://example.com/">fine</a><script src="//cdn.example.com/x.js"></script>', encoding="utf-8"
    )
    (tmp_path / "a.css").write_text("@import 'https://example.com/f.css'; a { background: url(b.png) }", "utf-8")
    assert list(make_site.loaded_from_elsewhere(tmp_path)) == [
        "a.css: https://example.com/f.css",
        "a.html: //cdn.example.com/x.js",
    ]


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: `make docs` does so")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    make_site.build(site=tmp_path / "site")
    assert (tmp_path / "site" / "index.html").exists()

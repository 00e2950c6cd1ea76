"""Build the site of all documents into ``build/site``: ``make docs``.

Documents stand where their subject is, and link to each other by their places in the repository. So each is copied to
``build/pages`` under the name of its page, its links are turned to pages, and mkdocs builds the site from there
(``mkdocs.yml``). A link to a file that is no page, such as a module, becomes its text and the file's path.

The site loads nothing from other hosts: a page that would is an error.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from textwrap import dedent, indent
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    "docs/index.md": "index.md",
    "docs/senders.md": "senders.md",
    "docs/python.md": "python.md",
    "docs/migration.md": "migration.md",
    "docs/operating.md": "operating.md",
    "docs/metrics.md": "metrics.md",
    "docs/audit-and-privacy.md": "audit-and-privacy.md",
    "docs/performance.md": "performance.md",
    "README.md": "overview.md",
    "schemas/CONTRACT.md": "contract.md",
    "schemas/README.md": "contract-in-python.md",
    "schemas/pack/README.md": "contract-pack.md",
    "deploy/ACCESS.md": "access.md",
    "deploy/CAPACITY.md": "capacity.md",
    "deploy/PRIVACY.md": "privacy.md",
    "SECURITY.md": "security.md",
    "worker/DESIGN.md": "design.md",
    "tests/faults/README.md": "faults.md",
    "tests/model/README.md": "model.md",
    "tests/benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""The page of each document."""
IMAGES: Final = ROOT / "docs" / "images"
"""The pictures, which pages of ``docs`` name as ``images/…``."""

_FENCE: Final = re.compile(r"^```.*?^```[ ]*$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^(#{1,6} +)(.+?) *$", re.MULTILINE)
_MARKER: Final = re.compile(r"^<!-- (?:run|output contains)\b.*-->\n", re.MULTILINE)
_NESTED_FENCE: Final = re.compile(r"^( +)```[a-z]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_NESTED_PARAGRAPH: Final = re.compile(r"(?<=\n\n) {2,3}(?=[^ ])")
_EMPTY_HEADER: Final = re.compile(r"^\|(?: \|)+$", re.MULTILINE)
_UNPARTED_LIST: Final = re.compile(r"^((?![-*] |\d+\. |[ |#]).+\n(?=- |1\. )| .+\n(?=\d+\. ))", re.MULTILINE)


class NotSelfContained(Exception):
    """A built page loads something from another host."""


def prose_of(text: str) -> str:
    """Return a document without its fenced blocks."""
    return _FENCE.sub("", text)


def links_of(text: str) -> list[str]:
    """Return the targets of all links of a document, in their order."""
    return [match["target"] for match in _LINK.finditer(prose_of(text))]


def slug_of(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    plain = _LINK.sub(r"\g<text>", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors_of(text: str) -> list[str]:
    """Return the anchors of all headings of a document, in their order."""
    return [slug_of(match[2]) for match in _HEADING.finditer(prose_of(text))]


def is_elsewhere(target: str) -> bool:
    """True for a link to another host."""
    return re.match(r"[a-z][a-z+.-]*:|//", target) is not None


def place_of(source: str, target: str) -> str:
    """Return the path in the repository to which a link in the document ``source`` leads, without its anchor."""
    path = target.partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source


def page_of(source: str, text: str) -> str:
    """Return the document ``source`` as mkdocs should read it."""

    def linked(match: re.Match[str]) -> str:
        target = match["target"]
        if is_elsewhere(target):
            return match[0]
        place, anchor = place_of(source, target), target.partition("#")[2]
        if place.startswith(f"{IMAGES.relative_to(ROOT)}/"):
            return match[0]
        if page := PAGES.get(place):
            return f"[{match['text']}]({page}{'#' + anchor if anchor else ''})"
        return match["text"] if match["text"].strip("`") == place else f"{match['text']} (`{place}`)"

    def prepared(prose: str) -> str:
        prose = _MARKER.sub("", prose)
        # mkdocs' Markdown needs an empty line before a list and four spaces inside an item, knows no fence there and no
        # table with an empty header, and has other anchors than GitHub's.
        prose = _UNPARTED_LIST.sub(r"\1\n", prose)
        prose = _NESTED_FENCE.sub(lambda found: indent(dedent(found[2]), " " * 8).rstrip("\n"), prose)
        prose = _NESTED_PARAGRAPH.sub(" " * 4, prose)
        prose = _EMPTY_HEADER.sub(lambda found: found[0].replace("| ", "| &nbsp; "), prose)
        prose = _HEADING.sub(lambda found: f"{found[0].rstrip()} {{ #{slug_of(found[2])} }}", prose)
        return _LINK.sub(linked, prose)

    return _outside_fences(text, prepared)


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def write_pages(directory: Path) -> None:
    """Write all pages into ``directory``, and nothing else."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (directory / page).write_text(page_of(source, text), encoding="utf-8")
    shutil.copytree(IMAGES, directory / IMAGES.name)


class _Loaded(HTMLParser):
    """Collects the addresses that a browser loads to show a page. A link that a person follows is none."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        names = ("src", "srcset", "data", "poster", "href") if tag != "a" else ()
        self.addresses += [given[name] or "" for name in names if name in given]


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """Yield each address on another host that a page or a style sheet of ``site`` loads, with the file's name."""
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = _Loaded()
            parser.feed(path.read_text(encoding="utf-8"))
            addresses = parser.addresses
        elif path.suffix == ".css":
            style = path.read_text(encoding="utf-8")
            addresses = re.findall(r"(?:url\(|@import\s+)[\s\"']*([^\s\"')]+)", style)
        else:
            continue
        for address in addresses:
            if is_elsewhere(address) and not address.startswith("data:"):
                yield f"{path.relative_to(site)}: {address}"


def build(pages: Path = ROOT / "build" / "pages", site: Path = ROOT / "build" / "site") -> None:
    """Build the site. Raises ``NotSelfContained``, and ``CalledProcessError`` if mkdocs finds a fault."""
    write_pages(pages)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--clean"]
    command += ["--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(site)]
    subprocess.run(command, check=True)  # noqa: S603 - the command is ours
    if found := list(loaded_from_elsewhere(site)):
        raise NotSelfContained("\n".join(found))


if __name__ == "__main__":
    build()
    print("build/site/index.html")

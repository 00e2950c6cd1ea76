"""The judged commit, and the results of an earlier run that are still valid for it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.gate.stages import ROOT
from tests.gate.verdicts import Result

RESULTS: Final = ROOT / ".cache" / "gate" / "verify.json"


@dataclass(frozen=True, slots=True)
class Checkout:
    """The state of the files. ``commit`` is empty where git cannot tell it."""

    commit: str
    clean: bool

    @property
    def told(self) -> str:
        name = f"commit {self.commit[:12]}" if self.commit else "no commit"
        return name if self.clean else f"{name}, with changes that are not committed"


def checkout(root: Path = ROOT) -> Checkout:
    """Return the state of the files as git sees it."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return Checkout(commit, not _git(root, "status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return Checkout("", clean=False)


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


class Memory:
    """The results of stages in a file.

    Results of another commit, or of files that are in no commit, do not count.
    """

    def __init__(self, path: Path = RESULTS) -> None:
        self._path = path

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def results(self, now: Checkout) -> dict[str, Result]:
        """Return the results of an earlier run at this commit, by stage."""
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if not now.clean or document["commit"] != now.commit:
                return {}
            return {each["stage"]: Result.of_before(each) for each in document["results"]}
        except (OSError, ValueError, KeyError, TypeError):
            # None was written, or another version wrote it.
            return {}

    def keep(self, result: Result, began: Checkout, ended: Checkout) -> None:
        """Keep a result, if the files were those of one commit from its beginning to its end."""
        if not began.clean or began != ended:
            return
        results = {**self.results(began), result.stage: result}
        document = {"commit": began.commit, "results": [each.document() for each in results.values()]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(document, indent=1), encoding="utf-8")
        new.replace(self._path)

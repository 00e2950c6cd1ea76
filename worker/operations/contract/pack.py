"""The contract pack: everything that another system needs to know of this one, as files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effective_contract.methods import METHODS, Methods
from worker.operations.contract.asyncapi import asyncapi
from worker.operations.contract.deployment import Deployment
from worker.operations.contract.guide import guide
from worker.operations.contract.json_schemas import described, json_schema
from worker.operations.contract.samples import SAMPLES
from worker.operations.contract.samples import document as shown_sample


def pack(deployment: Deployment, methods: Methods = METHODS) -> dict[str, str]:
    """Return the text of every file by its path within the pack."""
    schemas = {f"{name}.schema.json": text_of(json_schema(name, methods)) for name in described(methods)}
    samples = {
        f"samples/{number:02}-{sample.name}.json": text_of(shown_sample(sample))
        for number, sample in enumerate(SAMPLES, 1)
    }
    document = text_of(asyncapi(deployment, methods))
    return {"README.md": guide(deployment), "asyncapi.json": document, **schemas, **samples}


def text_of(document: Any) -> str:
    """Return a document as JSON for people and for version control."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(directory: Path, files: Mapping[str, str]) -> None:
    """Write the pack, and create the directory if necessary. Other files in it stay. Raises ``OSError``."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")

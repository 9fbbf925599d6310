"""Cases of the Wycheproof project (C2SP/wycheproof, testvectors_v1, Apache-2.0), where their files can be found.

They are looked for in the folder that FRAMP_VECTORS names, else in `shared/vectors` beside the checkout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("FRAMP_VECTORS", Path(__file__).resolve().parents[3] / "shared" / "vectors"))
Case = dict[str, Any]


def cases(name: str) -> list[tuple[Case, Case]]:
    """(group, case) of one file; skips the test if the file is not there."""
    path = FOLDER / f"wycheproof_{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: set FRAMP_VECTORS to the folder that holds it")
    groups = json.loads(path.read_text())["testGroups"]
    return [(group, case) for group in groups for case in group["tests"]]


def raw(text: str) -> bytes:
    """Hexadecimal text as bytes."""
    return bytes.fromhex(text)

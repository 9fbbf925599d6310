"""Digests that somebody else can compute, and a commitment that gives nothing away and can be opened."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import stat
from importlib import metadata
from pathlib import Path

import pytest

from framp_private.errors import CryptoError
from framp_private.provenance import code_sha256, commitment, provenance, versions
from tests.tiny import tiny_dataset

PRINT = "ab" * 32


def test_the_digests_are_of_what_they_say(folders: dict[str, Path]) -> None:
    folder = folders["open"]
    origin = json.loads((folder / "summary.json").read_text())["provenance"]
    assert origin["config_sha256"] == hashlib.sha256((folder / "config.yaml").read_bytes()).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", origin["code_sha256"]) and origin["versions"] == versions()
    key_file = folder / "private" / "keys" / "data-commitment.key"
    key, fingerprint = bytes.fromhex(key_file.read_text()), bytes.fromhex(tiny_dataset().fingerprint)
    assert origin["data_commitment"] == hmac.digest(key, fingerprint, "sha256").hex()
    assert len(key) == 32 and stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_nothing_in_summary_or_report_tells_the_fingerprint_or_the_key(folders: dict[str, Path]) -> None:
    key = (folders["open"] / "private" / "keys" / "data-commitment.key").read_text().strip()
    for name in ("summary.json", "report.html"):
        written = (folders["open"] / name).read_text()
        assert tiny_dataset().fingerprint not in written and key not in written


def test_equal_data_have_unequal_commitments_in_two_runs_and_one_in_one(tmp_path: Path) -> None:
    first, again = (commitment(PRINT, tmp_path / "a" / "x.key") for _ in range(2))
    other = commitment(PRINT, tmp_path / "b" / "x.key")
    assert first == again != other
    assert commitment("cd" * 32, tmp_path / "a" / "x.key") != first


@pytest.mark.parametrize("content", ["", "zz" * 32, "ab" * 16, "ab" * 33])
def test_a_file_that_is_no_key_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(CryptoError):
        commitment(PRINT, path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    commitment(PRINT, tmp_path / "x.key")
    (tmp_path / "x.key").chmod(0o644)
    with pytest.raises(CryptoError, match="others"):
        commitment(PRINT, tmp_path / "x.key")


def test_without_a_folder_there_is_no_commitment() -> None:
    origin = provenance({"a": 1}, PRINT, None)
    assert origin["data_commitment"] is None and origin["code_sha256"] == code_sha256()


def test_a_run_without_messages_commits_to_its_data_too(folders: dict[str, Path]) -> None:
    origin = json.loads((folders["silent"] / "summary.json").read_text())["provenance"]
    assert len(origin["data_commitment"]) == 64


def test_the_code_digest_sees_every_name_and_byte(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return code_sha256(tmp_path / name)

    base = tree("base", {"a.py": "x = 1\n", "b/c.py": "y = 2\n"})
    assert base == tree("same", {"b/c.py": "y = 2\n", "a.py": "x = 1\n", "notes.txt": "not code"})
    others = [
        tree("byte", {"a.py": "x = 2\n", "b/c.py": "y = 2\n"}),
        tree("name", {"a.py": "x = 1\n", "b/d.py": "y = 2\n"}),
        tree("less", {"a.py": "x = 1\n"}),
        tree("moved", {"a.py": "x = 1\ny = 2\n", "b/c.py": ""}),
        tree("more", {"a.py": "x = 1\n", "b/c.py": "y = 2\n", "d.py": ""}),
    ]
    assert len({base, *others}) == 6


def test_versions_are_those_installed() -> None:
    found = versions()
    assert set(found) == {
        "framp_private",
        "python",
        "torch",
        "numpy",
        "opacus",
        "dp-accounting",
        "tenseal",
        "cryptography",
    }
    assert found["numpy"] == metadata.version("numpy") and found["torch"] == metadata.version("torch")

"""Provenance: JSON values, and the commit of our own checkout only."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import atrous.provenance as module
from atrous.provenance import provenance


def test_it_is_json_with_versions_hardware_and_command() -> None:
    facts = json.loads(json.dumps(provenance()))
    assert facts["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", facts["commit"])
    assert {"atrous", "torch", "timm"} <= facts["versions"].keys()
    assert "cores" in facts["hardware"]
    assert facts["command"]


def test_a_package_installed_inside_another_repository_does_not_take_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    (tmp_path / "provenance.py").touch()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert provenance()["commit"] is None

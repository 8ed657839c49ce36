"""Registries: names that map to functions, and how other packages add theirs."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import atrous.registry
from atrous.errors import InputError
from atrous.registry import Registry


def make() -> Registry[int]:
    registry: Registry[int] = Registry("model", "atrous.models")
    registry.add("ours", make, 1)
    return registry


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that has a model ``theirs``, one that registers nothing and one that can't be imported."""
    (tmp_path / "elsewhere.py").write_text("from tests_registry import registry\nregistry.add('theirs', print, 2)\n")
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    points = [
        EntryPoint("theirs", "elsewhere", "atrous.models"),
        EntryPoint("silent", "json:dumps", "atrous.models"),
        EntryPoint("broken", "broken:model", "atrous.models"),
    ]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(atrous.registry, "entry_points", lambda group: points if group == "atrous.models" else [])


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no model 'theirs'; there are: ours"):
        make().find("theirs")


def test_a_name_is_not_taken_twice_but_the_same_function_may_come_again() -> None:
    registry = make()
    registry.add("ours", make, 3)
    assert registry.find("ours") == 3
    with pytest.raises(InputError, match=r"already a model 'ours' \(.*\.make\); choose another name"):
        registry.add("ours", print, 2)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_is_imported_when_its_name_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make()
    monkeypatch.setitem(sys.modules, "tests_registry", type(sys)("tests_registry"))
    sys.modules["tests_registry"].registry = registry  # type: ignore[attr-defined]
    assert sorted(registry) == ["broken", "ours", "silent", "theirs"]
    assert "theirs" in registry
    assert "elsewhere" not in sys.modules
    assert registry.find("theirs") == 2
    assert "elsewhere" in sys.modules


@pytest.mark.usefixtures("installed")
def test_a_package_that_does_not_bring_what_it_lists_is_named() -> None:
    with pytest.raises(InputError, match=r"model 'broken' can't be loaded from broken:model: .*no_such_package"):
        make().find("broken")
    with pytest.raises(InputError, match="json:dumps was loaded for the model 'silent', but registers nothing"):
        make().find("silent")

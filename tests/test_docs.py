"""The pages of docs/: command lines that exist, and examples run from top to bottom as a reader would."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.sources.registry import OPENERS
from atrous.models.registry import ARCHITECTURES, BACKBONES
from atrous.training.losses import LOSSES
from tests.commands import unknown_words

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "extending.md"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.glob("**/*.md") if path.name != "api.md")


@pytest.mark.parametrize("name", PAGES)
def test_every_command_line_has_its_command_and_options(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if re.match(r"(atrous|torchrun .* atrous) ", line)]
    inline = [
        code
        for code in re.findall(r"`(atrous [a-z][^`\n]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        if "…" not in code
    ]
    assert {code: words for code in [*lines, *inline] if (words := unknown_words(code.split("    ")[0]))} == {}


def test_a_field_of_view_becomes_255_and_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("vessels", "views", "masks", "images"):
        Path(folder).mkdir()
    vessels, view = np.zeros((40, 50), np.uint8), np.zeros((40, 50), np.uint8)
    vessels[20], view[5:35, 5:45] = 255, 255
    Image.fromarray(vessels).save("vessels/1.png")
    Image.fromarray(view).save("views/1.png")
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save("images/1.png")
    Path("labels.toml").write_text('names = ["retina", "vessel"]', encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / "medical.md").read_text(), re.DOTALL)
    exec(compile(code, "medical.md", "exec"), {})
    said = CliRunner().invoke(app, ["data", "stats", "folder:.", "--split", "all"])
    assert said.exit_code == 0, said.output
    assert "(ignored)   40.00 %" in said.output
    assert re.search(r"vessel +2.00 %", said.output)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page registers is gone after it."""
    for registry in (ARCHITECTURES, BACKBONES, LOSSES, OPENERS):
        for store in ("_entries", "_owners"):
            monkeypatch.setattr(registry, store, dict(getattr(registry, store)))


@pytest.mark.slow
def test_every_door_opens_as_the_page_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registries: None
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    assert (tmp_path / "runs" / "dark" / "best").is_dir()

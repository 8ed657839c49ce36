"""The documentation as a site that opens from disk: ``python -m docs.site``.

Zensical (``pip install -e ".[docs]"``) makes it: the successor of Material for MkDocs, by the same authors, fast and
strict; Material itself is at its end. The pages keep the places they have in the repository, so that their links work
on both. A folder or a source file is not part of the site, and a link to it becomes plain text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = ("*.md", "docs/**/*.md", "results/**/*.md")
BESIDE = ("docs/images/*", "results/**/*.png", "results/**/*.jpg")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")
_SHIM = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"[^>]*>')
_LOADED = re.compile(r"<(?:script|img|iframe|link[^>]*stylesheet)[^>]*(?:src|href)=\"?https?://[^>]*>")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def main(out: Annotated[Path, typer.Option(help="Folder for the site.")] = ROOT / "site") -> None:
    """Build the site; a broken link or reference fails."""
    if out.exists() and not (out / "search.json").is_file():  # else it is an earlier site, which is replaced
        raise SystemExit(f"{out} exists and is not a site of this command: name a new folder")
    stage()
    shutil.copyfile(ROOT / "docs" / "zensical.toml", BUILD / "zensical.toml")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=BUILD, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    keep_inside(BUILD / "site")
    if out.exists():
        shutil.rmtree(out)
    shutil.move(BUILD / "site", out)
    typer.echo(f"open {out / 'index.html'}")


def stage() -> None:
    """Copy the pages and their images to ``build/pages``."""
    folder = BUILD / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    pages = sorted({path for pattern in PAGES for path in ROOT.glob(pattern)})
    for page in pages:
        target = folder / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(without_dead_links(page, set(pages)), encoding="utf-8")
    for pattern in BESIDE:
        for path in ROOT.glob(pattern):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def without_dead_links(page: Path, pages: set[Path]) -> str:
    """The text of a page, in which links to what is in the repository but not in the site are plain text.

    A link to nothing at all is left as it is, and fails.
    """

    def replace(link: re.Match[str]) -> str:
        words, place, _ = link.groups()
        target = (page.parent / place).resolve()
        outside = "://" not in place and target.exists() and target not in pages
        return words if outside and target.suffix not in (".png", ".jpg") else link.group()

    parts = _CODE.split(page.read_text(encoding="utf-8"))
    return "".join(part if number % 2 else _LINK.sub(replace, part) for number, part in enumerate(parts))


def keep_inside(site: Path) -> None:
    """Put our own script in the place of the one for search from disk, which Zensical's pages load from a CDN.

    Raises:
        SystemExit: a page loads anything else from elsewhere.
    """
    script = site / "assets" / "javascripts" / "frame_worker.js"
    shutil.copyfile(ROOT / "docs" / "frame_worker.js", script)
    for page in site.rglob("*.html"):
        up = "../" * len(page.relative_to(site).parent.parts)
        text = _SHIM.sub(f'<script src="{up}{script.relative_to(site).as_posix()}">', page.read_text(encoding="utf-8"))
        if found := _LOADED.search(text):
            raise SystemExit(f"{page.relative_to(site)} loads from elsewhere: {found.group()}")
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

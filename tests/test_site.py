"""The documentation's site: its pages are those of the repository, and nothing is loaded from elsewhere."""

from pathlib import Path

import pytest

from docs import site


def test_links_to_what_is_not_part_of_the_site_become_text(tmp_path: Path) -> None:
    page, other = tmp_path / "docs" / "a.md", tmp_path / "docs" / "b.md"
    page.parent.mkdir()
    (tmp_path / "src").mkdir()
    other.write_text("# B")
    page.write_text("[b](b.md#x), [source](../src), [lost](no.md), `[code](../src)`, [web](https://example.org)")
    text = site.without_dead_links(page, {page, other})
    assert text == "[b](b.md#x), source, [lost](no.md), `[code](../src)`, [web](https://example.org)"


def test_pages_load_our_script_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "assets" / "javascripts").mkdir(parents=True)
    page = tmp_path / "docs" / "a.html"
    page.parent.mkdir()
    page.write_text('<script src="https://unpkg.com/iframe-worker/shim" type="text/javascript"></script>')
    site.keep_inside(tmp_path)
    assert page.read_text() == '<script src="../assets/javascripts/frame_worker.js"></script>'
    page.write_text('<img src="https://example.org/a.png">')
    with pytest.raises(SystemExit, match=r"docs/a.html loads from elsewhere: <img"):
        site.keep_inside(tmp_path)


def test_no_folder_but_an_earlier_site_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="is not a site of this command"):
        site.main(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_every_page_has_a_place_in_the_menu() -> None:
    menu = (site.ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8")
    pages = [
        path.relative_to(site.ROOT).as_posix() for path in [*site.ROOT.glob("*.md"), *site.ROOT.glob("docs/**/*.md")]
    ]
    assert [page for page in pages if f'"{page}"' not in menu] == []

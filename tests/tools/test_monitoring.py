"""Row 75: the files for Prometheus and Grafana name what the cluster tells, and are what these two read. Pure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from zmreg.tools import monitoring
from zmreg.tools.cli.metrics import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "metrics.md").read_text()
# Name -> (kind, labels), of the page that is held against what is told (tests/api/test_metrics.py).
TOLD = {
    name: (kind, {"node", *filter(None, re.split(r",\s*", labels))})
    for name, kind, labels in re.findall(r"^\| `(zmreg_\w+)` \| (\w+) \| ([^|]*?) ?\|", PAGE, re.MULTILINE)
}
EXPRESSIONS = [
    *(alert.expression for alert in monitoring.ALERTS),
    *(line for _, row in monitoring.BOARD for panel in row for line, _ in panel.lines),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_row_75_rules_and_the_board_name_what_is_told_by_labels_that_it_has(expression):
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    have: set[str] = set()
    for name, conditions in re.findall(r"(zmreg_\w+)(?:\{([^}]*)\})?", expression):
        plain = re.sub("_(bucket|sum|count)$", "", name)
        kind, labels = TOLD[name] if name in TOLD else TOLD[plain]
        assert (kind == "histogram") == (plain != name), name
        assert ("rate(" in expression or "increase(" in expression) == (kind != "gauge"), expression
        used = set(re.findall(r"(\w+)=", conditions))
        assert used <= labels, f"{name} has no {used - labels}"
        have |= labels | ({"le"} if kind == "histogram" else set())
    for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(names.split(", ")) <= have, names


def test_row_75_rules_are_yaml_as_prometheus_reads_it():
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load(monitoring.rules())["groups"]
    assert group["name"] == "zmreg" and len(group["rules"]) == len(monitoring.ALERTS)
    for rule, alert in zip(group["rules"], monitoring.ALERTS, strict=True):
        assert rule["alert"] == alert.name and rule["expr"] == alert.expression and re.fullmatch(r"\d+m", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = re.findall(r"\bby \(([^)]*)\)", alert.expression)
        labels = set().union(*(TOLD[name][1] for name in re.findall(r"zmreg_\w+", alert.expression) if name in TOLD))
        assert shown <= (set(grouped[0].split(", ")) if grouped else labels), "it would show nothing"
    assert len({alert.name for alert in monitoring.ALERTS}) == len(monitoring.ALERTS)


def test_row_75_the_board_is_json_and_its_panels_lie_side_by_side():
    document = json.loads(monitoring.board())
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs) and (refs or panel["type"] == "row")


def test_row_75_the_command_prints_both_and_asks_nobody():
    for option, text in (("--rules", monitoring.rules()), ("--grafana", monitoring.board())):
        done = CliRunner().invoke(metrics, [option])
        assert done.exit_code == 0 and done.output == text
        assert CliRunner().invoke(metrics, [option, "--json"]).exit_code == 2

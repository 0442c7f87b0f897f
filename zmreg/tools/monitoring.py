"""Alert rules for Prometheus and a board for Grafana, made of tables: `zmreg metrics --rules`, `--grafana`.

A test holds all names in them against what the cluster tells.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple


class Alert(NamedTuple):
    """`lasts`: for so long it has to be true."""

    name: str
    expression: str
    lasts: str
    severity: str
    says: str


WARNING: Final = "warning"
CRITICAL: Final = "critical"

ALERTS: Final = (
    Alert("ZmregHeadSilent", "absent(zmreg_nodes)", "2m", CRITICAL,
          "Nobody tells of the cluster: its head is gone, or not scraped. `zmreg status` on its machine."),
    Alert("ZmregNodeSuspected", 'zmreg_nodes{state="suspected"} > 0', "1m", WARNING,
          "{{ $value }} nodes are silent and get no new work. `zmreg status`."),
    Alert("ZmregNodeDied", 'delta(zmreg_nodes{state="dead"}[10m]) > 0', "0m", CRITICAL,
          "{{ $value }} nodes were declared dead. `zmreg logs` of the head says why."),
    Alert("ZmregCallsFail",
          'sum(rate(zmreg_tasks_finished_total{outcome="failed"}[5m]))'
          " / sum(rate(zmreg_tasks_finished_total[5m])) > 0.05",
          "10m", WARNING, "{{ $value | humanizePercentage }} of the calls fail. `zmreg summary`."),
    Alert("ZmregCallsWait",
          "histogram_quantile(0.95, sum by (le, function) (rate(zmreg_call_wait_seconds_bucket[5m]))) > 60",
          "10m", WARNING, "Calls of {{ $labels.function }} wait {{ $value | humanizeDuration }}. `zmreg why`."),
    Alert("ZmregNothingFree", "zmreg_leases_waiting > 0", "15m", WARNING,
          "{{ $value }} leases have been waiting at {{ $labels.node }}: add nodes, or ask for less."),
    Alert("ZmregStoreWaits", "zmreg_object_store_waiting > 0", "5m", WARNING,
          "{{ $value }} processes wait for room in the store of {{ $labels.node }}. `zmreg memory`."),
    Alert("ZmregStoreFull",
          'zmreg_object_store_bytes{location="primary"} / on (node) sum by (node) (zmreg_object_store_bytes) > 0.95',
          "10m", WARNING, "Values fill the store of {{ $labels.node }}. `zmreg memory` says who holds what."),
    Alert("ZmregSpills", "rate(zmreg_spill_bytes_total[10m]) > 0", "30m", WARNING,
          "{{ $labels.node }} writes values to its disk, {{ $value | humanize1024 }}B a second."),
    Alert("ZmregMemoryShort", "increase(zmreg_memory_ended_total[10m]) > 0", "0m", WARNING,
          "{{ $labels.node }} has ended workers for want of memory. `zmreg logs`."),
    Alert("ZmregActorsRestart", "increase(zmreg_actor_restarts_total[15m]) > 5", "0m", WARNING,
          "Actors crash: {{ $value }} were started again in a quarter of an hour. `zmreg list actors`."),
    Alert("ZmregStrangers", "increase(zmreg_auth_rejected_total[10m]) > 0", "0m", WARNING,
          "Somebody without the key has called at {{ $labels.node }}. `zmreg logs` has the address."),
    Alert("ZmregProtocolErrors", "increase(zmreg_protocol_errors_total[10m]) > 0", "0m", WARNING,
          "{{ $labels.node }} was sent what makes no sense. `zmreg logs`."),
    Alert("ZmregReplicasDiffer", "increase(zmreg_registry_digest_mismatch_total[1h]) > 0", "0m", WARNING,
          "A replica at {{ $labels.node }} was not equal to its original, and was mended: an error of zmreg's."),
    Alert("ZmregLinksBreak", "increase(zmreg_link_lost_total[15m]) > 5", "0m", WARNING,
          "{{ $labels.node }} has lost {{ $value }} connections in a quarter of an hour."),
    Alert("ZmregNodeSlow", "zmreg_loop_lag_seconds > 1", "5m", WARNING,
          "{{ $labels.node }} takes {{ $value | humanizeDuration }} to turn to a question: its machine is overloaded."),
    Alert("ZmregDeadLetters", "increase(zmreg_pipeline_dead_letters_total[15m]) > 0", "0m", WARNING,
          "Stage {{ $labels.stage }} could not do {{ $value }} items."),
    Alert("ZmregPhaseFailed", 'increase(zmreg_run_phases_ended_total{state="failed"}[15m]) > 0', "0m", WARNING,
          "{{ $value }} phases of runs have failed. `zmreg runs`."),
    Alert("ZmregMetricsDropped", "increase(zmreg_metrics_dropped_total[1h]) > 0", "0m", WARNING,
          "Values of {{ $labels.metric }} are not taken: too many series, or two kinds under one name."),
)  # fmt: skip


class Panel(NamedTuple):
    """`lines`: an expression and how its series are called, each."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


_FUNCTION: Final = "{{function}}"


def _quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, sum by (le, function) (rate({name}_bucket[$__rate_interval])))"


BOARD: Final = (
    ("Cluster", (
        Panel("Nodes", "short", (("zmreg_nodes", "{{state}}"),)),
        Panel("Actors", "short", (("zmreg_actors", "{{state}}"),)),
        Panel("Workers", "short", (("sum by (state) (zmreg_workers)", "{{state}}"),)),
        Panel("Resources in use", "percentunit", (
            ('sum by (resource) (zmreg_resources{state="used"}) / sum by (resource) (zmreg_resources)',
             "{{resource}}"),
        )),
    )),
    ("Calls", (
        Panel("Calls that end", "ops", (
            ("sum by (outcome) (rate(zmreg_tasks_finished_total[$__rate_interval]))", "{{outcome}}"),
        )),
        Panel("Calls under way", "short", (("sum by (state) (zmreg_tasks)", "{{state}}"),)),
        Panel("They run, median", "s", ((_quantile(0.5, "zmreg_call_run_seconds"), _FUNCTION),)),
        Panel("They run, 95 of 100", "s", ((_quantile(0.95, "zmreg_call_run_seconds"), _FUNCTION),)),
        Panel("They wait, median", "s", ((_quantile(0.5, "zmreg_call_wait_seconds"), _FUNCTION),)),
        Panel("They wait, 95 of 100", "s", ((_quantile(0.95, "zmreg_call_wait_seconds"), _FUNCTION),)),
        Panel("By function", "ops", (
            ("sum by (function) (rate(zmreg_call_run_seconds_count[$__rate_interval]))", _FUNCTION),
        )),
        Panel("Seconds of work a second", "short", (
            ("sum by (function) (rate(zmreg_call_run_seconds_sum[$__rate_interval]))", _FUNCTION),
        )),
    )),
    ("Values", (
        Panel("The stores", "bytes", (("sum by (location) (zmreg_object_store_bytes)", "{{location}}"),)),
        Panel("Spilled and restored", "Bps", (
            ("sum(rate(zmreg_spill_bytes_total[$__rate_interval]))", "spilled"),
            ("sum(rate(zmreg_restore_bytes_total[$__rate_interval]))", "restored"),
        )),
        Panel("From node to node", "Bps", (
            ("sum by (node) (rate(zmreg_fetch_bytes_total{dir=\"in\"}[$__rate_interval]))", "values to {{node}}"),
            ("sum by (node) (rate(zmreg_letter_bytes_total{dir=\"in\"}[$__rate_interval]))", "calls to {{node}}"),
        )),
        Panel("Who waits for room", "short", (("zmreg_object_store_waiting", "{{node}}"),)),
    )),
    ("Pipelines and runs", (
        Panel("Items out of stages", "ops", (
            ("sum by (stage) (rate(zmreg_pipeline_items_out_total[$__rate_interval]))", "{{stage}}"),
        )),
        Panel("Items before stages", "short", (("sum by (stage) (zmreg_pipeline_depth)", "{{stage}}"),)),
        Panel("Phases", "short", (("sum by (state) (zmreg_run_phases)", "{{state}}"),)),
        Panel("Under way in phases", "short", (("sum by (phase) (zmreg_run_under_way)", "{{phase}}"),)),
    )),
    ("Machines", (
        Panel("CPU", "short", (
            ("sum by (node, role) (rate(zmreg_process_cpu_seconds_total[$__rate_interval]))", "{{node}} {{role}}"),
        )),
        Panel("Memory", "bytes", (("sum by (node, role) (zmreg_process_resident_bytes)", "{{node}} {{role}}"),)),
        Panel("The nodes' loops", "s", (("zmreg_loop_lag_seconds", "{{node}}"),)),
        Panel("What should not be", "short", (
            ("sum by (node) (increase(zmreg_protocol_errors_total[$__rate_interval]))", "nonsense {{node}}"),
            ("sum by (node) (increase(zmreg_auth_rejected_total[$__rate_interval]))", "strangers {{node}}"),
            ("sum by (node) (increase(zmreg_link_lost_total[$__rate_interval]))", "links lost {{node}}"),
            ("sum by (node) (increase(zmreg_memory_ended_total[$__rate_interval]))", "short of memory {{node}}"),
        )),
    )),
)  # fmt: skip


def rules() -> str:
    """A file for `rule_files:` of Prometheus. Texts are quoted as JSON has it, which is YAML."""
    lines = ["groups:", "  - name: zmreg", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.says)}",
        ]
    return "\n".join([*lines, ""])


_WIDTH, _HEIGHT = 12, 8
"""Of a panel; a board is 24 wide."""


def board() -> str:
    """A file for Grafana's "Import dashboard"; it asks for the data source."""
    panels: list[dict[str, Any]] = []
    at = 0
    for title, row in BOARD:
        place = {"x": 0, "y": at, "w": 2 * _WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        at += 1
        for number, panel in enumerate(row):
            place = {"x": number % 2 * _WIDTH, "y": at + number // 2 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(len(panels) + 1, panel, place))
        at += -(-len(row) // 2) * _HEIGHT
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    document = {
        "title": "zmreg", "uid": "zmreg", "tags": ["zmreg"], "schemaVersion": 39, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "templating": {"list": [source]}, "panels": panels,
    }  # fmt: skip
    return json.dumps(document, indent=2) + "\n"


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend, "datasource": source}
        for index, (expression, legend) in enumerate(panel.lines)
    ]
    return {
        "id": number, "type": "timeseries", "title": panel.title, "gridPos": place, "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []}, "targets": targets,
    }  # fmt: skip

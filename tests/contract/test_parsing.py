"""What a contract may say, and how each mistake is answered."""

from __future__ import annotations

from datetime import timedelta

import pytest

from relevo.contract.durations import format_duration, parse_duration
from relevo.contract.model import Condition, Shadow, Task
from relevo.contract.parsing import parse_contract
from relevo.errors import Invalid

FLIGHTS = """\
model: flight-delay
owner: ops-analytics
task: classification
package: flight_delay
sources:
  flights: {loader: "flight_delay.sources:flights", key: [flight_id], event_time: scheduled_at, known_time: landed_at}
  weather: {loader: "flight_delay.sources:weather", key: [origin], event_time: observed_at}
features: "flight_delay.features"
ask: {source: flights, at: scheduled_at, inputs: [carrier, origin, dest, tailnum, distance]}
label: {column: is_late, source: flights, available_after: 6h, allowance: 24h}
training:
  window: expanding
  holdout: 14d
  entry: "flight_delay.train:train"
  params: {learning_rate: 0.06, tiny: 1e-3, depth: 4, is_deep: true, kind: gbdt}
gates:
  - metric: roc_auc
    at_least: 0.65
  - metric: log_loss
    better_than_champion_by: 0.001
  - rule: "slices.all(s, s.roc_auc > 0.55)"
release:
  approvals: 1
  canary: {steps: [5, 25, 50], minutes: 10, requests: 500}
  slo: {p99_ms: 50, error_rate: 0.001}
log: durable
monitor: {window: 7d, slices: [origin, carrier]}
retrain:
  when: {any_of: [{performance_drop: 0.02}, {age: 28d}], windows: "2 of 3"}
  guards: {cool_down: 14d, at_most: "14 per 365d", freeze_without_labels: true}
"""

PLAIN = """\
model: churn
owner: me
task: regression
package: churn
sources:
  data: {loader: "churn.sources:data", key: [row]}
ask: {source: data, inputs: [a, b]}
label: {column: y, source: data}
training: {entry: "churn.train:train", holdout: 20%}
"""


def _problems(text: str) -> list[str]:
    with pytest.raises(Invalid) as caught:
        parse_contract(text)
    assert caught.value.exit_status == 2
    return caught.value.message.splitlines()


def _changed(old: str, new: str, text: str = FLIGHTS) -> str:
    assert old in text
    return text.replace(old, new)


def test_the_whole_contract_is_read() -> None:
    contract = parse_contract(FLIGHTS)
    assert contract.model == "flight-delay"
    assert contract.task is Task.CLASSIFICATION
    assert contract.source("flights").known_time == "landed_at"
    assert contract.label.available_after == timedelta(hours=6)
    assert contract.training.window is None
    assert contract.training.holdout == timedelta(days=14)
    assert contract.training.params == {
        "learning_rate": 0.06,
        "tiny": 0.001,
        "depth": 4,
        "is_deep": True,
        "kind": "gbdt",
    }
    assert [gate.metric for gate in contract.gates] == ["roc_auc", "log_loss", None]
    assert contract.release.canary.steps == (5, 25, 50)
    assert contract.monitor.slices == ("origin", "carrier")
    assert contract.retrain is not None
    assert contract.retrain.any_of == (
        Condition("performance_drop", 0.02),
        Condition("age", timedelta(days=28)),
    )
    assert contract.retrain.windows == (2, 3)
    assert contract.retrain.guards.at_most == (14, timedelta(days=365))


def test_a_contract_without_times_holds_out_a_share() -> None:
    contract = parse_contract(PLAIN)
    assert contract.training.holdout == pytest.approx(0.2)
    assert contract.ask.at is None
    assert contract.retrain is None
    assert parse_contract(_changed("20%", "0.3", PLAIN)).training.holdout == pytest.approx(0.3)


def test_a_sliding_window_is_read() -> None:
    contract = parse_contract(_changed("window: expanding", "window: {sliding: 90d}"))
    assert contract.training.window == timedelta(days=90)


def test_a_shadow_is_read() -> None:
    assert parse_contract(PLAIN).release.shadow is None
    declared = "shadow: {minutes: 30, share: 0.2, max_difference: 0.05, min_agreement: 0.98}"
    contract = parse_contract(_changed("approvals: 1", f"approvals: 1\n  {declared}"))
    assert contract.release.shadow == Shadow(30, 500, 0.2, 0.05, 0.98)
    assert parse_contract(_changed("approvals: 1", "approvals: 1\n  shadow: {}")).release.shadow == Shadow()


def test_a_regression_decides_nothing_that_a_shadow_could_agree_with() -> None:
    problems = _problems(PLAIN + "release: {shadow: {min_agreement: 0.9}}\n")
    assert problems == [
        "relevo.yaml:10: release.shadow.min_agreement: a regression decides nothing; expected max_difference"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("owner: ops", "ownr: ops", "relevo.yaml:2: ownr: unknown key; expected one of model, owner, "),
        ("owner: ops", "ownr: ops", "relevo.yaml:1: missing key 'owner'; expected text"),
        ("log: durable", "budget: {}\nlog: durable", "relevo.yaml:26: budget: unknown key; expected one of "),
        ("log: durable", "log: durible", "got 'durible'; did you mean 'durable'?"),
        ("log: durable", "log: {mode: durible}", "log.mode: expected one of durable, buffered, got 'durible'"),
        ("log: durable", "log: {sample: 0}", "log.sample: expected a share above 0 and at most 1, got the number 0"),
        ("log: durable", "log: {when_full: drop}", "log.when_full: expected one of refuse, serve, got 'drop'"),
        (
            "log: durable",
            "log: durable\nserving: {limits: {rows: 0}}",
            "serving.limits.rows: expected a whole number, 1 or more, got the number 0",
        ),
        (
            "log: durable",
            "log: durable\nserving: {limits: {timeout: 5}}",
            "serving.limits.timeout: unknown key; expected one of body_bytes, rows, concurrency, timeout_ms",
        ),
        ("log: durable", "log: {rate: 0.1}", "log.rate: unknown key; expected one of mode, sample, when_full"),
        ("owner: ops-analytics", "owner: 3", "owner: expected text, got the number 3 (put it in quotes"),
        ("owner: ops-analytics", "owner:", "relevo.yaml:2: owner: expected text, got nothing"),
        ("owner: ops-analytics", "owner: me\nowner: you", "relevo.yaml:3: owner: expected once, got again"),
        ("model: flight-delay", "model: Flight_Delay", "relevo.yaml:1: model: expected small letters"),
        ("model: flight-delay", "model: " + "a" * 64, "relevo.yaml:1: model: expected small letters"),
        ("classification", "clasification", "relevo.yaml:3: task: expected one of classification, regression"),
        ("package: flight_delay", "package: flight-delay", "package: expected a Python identifier"),
        ("package: flight_delay", "package: json", "package: expected a name of your own, got 'json', which Python or"),
        ("flight_delay.sources:flights", "flight_delay.sources", "expected module:name, such as flight_delay."),
        ("flight_delay.sources:flights", "fligth_delay.sources:flights", "did you mean 'flight_delay'?"),
        ("key: [flight_id]", "key: flight_id", "sources.flights.key: expected a list such as [flight_id], got 'fl"),
        ("key: [flight_id]", "key: []", "sources.flights.key: expected a list such as [flight_id], got an empty"),
        ("key: [flight_id]", "key: [a, a]", "sources.flights.key[1]: expected each name once, got 'a' again"),
        (", event_time: observed_at", ", known_time: observed_at", "with known_time needs event_time too"),
        ("ask: {source: flights,", "ask: {source: fligths,", "relevo.yaml:9: ask.source: expected one of flights, we"),
        ("is_late, source: flights", "is_late, source: fligts", "label.source: expected one of flights, weather, got"),
        ("is_late, source: flights", "is_late, source: weather", "expected a source with the key of flights (flight_"),
        ("[carrier, origin, dest", "[is_late, origin, dest", "'is_late' is also an input (line 9): the model would"),
        ("[carrier, origin, dest", "[landed_at, origin, dest", "'landed_at' is the known_time of the row: nobody"),
        (" at: scheduled_at,", "", "relevo.yaml:9: ask: missing key 'at'; sources.flights has an event_time"),
        (
            "available_after: 6h",
            "available_after: 6 hours",
            "available_after: expected a duration such as 30s, 90m, 6h",
        ),
        ("available_after: 6h", "available_after: 6", "available_after: expected a duration such as 30s, 90m, 6h"),
        ("allowance: 24h", "allowance: 999999999d", "label.allowance: expected a duration"),
        ("holdout: 14d", "holdout: 120%", "holdout: expected a duration such as 14d or a share such as 20%, above"),
        ("holdout: 14d", "holdout: 0d", "relevo.yaml:13: training.holdout: expected a duration such as 14d or a sh"),
        ("holdout: 14d", "holdout: .nan", "training.holdout: expected a duration such as 14d or a share"),
        ("window: expanding", "window: sliding", "expected expanding, or {sliding: 90d}, got 'sliding'"),
        ("depth: 4", "depth: [4]", "training.params.depth: expected text, a number, true or false, got a list"),
        ("depth: 4", "depth: .inf", "training.params.depth: expected a finite number, got inf"),
        ("metric: roc_auc", "metric: roc_acu", "relevo.yaml:17: gates[0].metric: expected one of roc_auc, log_loss, b"),
        ("metric: roc_auc", "metric: roc_acu", "got 'roc_acu'; did you mean 'roc_auc'?"),
        ("metric: roc_auc", "metric: rmse", "gates[0].metric: expected one of roc_auc"),
        (
            "    at_least: 0.65\n",
            "    at_least: 0.65\n    at_most: 0.9\n",
            "relevo.yaml:17: gates[0]: expected exactly",
        ),
        (
            "    at_least: 0.65\n",
            "",
            "gates[0]: expected exactly one of at_least, at_most, better_than_champion_by, go",
        ),
        ("at_least: 0.65", "at_least: high", "relevo.yaml:18: gates[0].at_least: expected a number, got 'high'"),
        ("at_least: 0.65", "at_least: .nan", "relevo.yaml:18: gates[0].at_least: expected a number, got the number"),
        (
            "metric: log_loss\n",
            'metric: log_loss\n    rule: "rows > 1"\n',
            "gates[1]: expected a metric with a bound, ",
        ),
        ("s.roc_auc > 0.55", "s.roc_acu > 0.55", "relevo.yaml:21: gates[2].rule: unknown metric or field; expected"),
        ("s.roc_auc > 0.55", "s.roc_acu > 0.55", "got 'roc_acu'; did you mean 'roc_auc'?"),
        (
            "slices.all",
            "slice.all",
            "gates[2].rule: unknown name; expected one of metrics, champion, baseline, slices, ",
        ),
        ("slices.all(s, s.roc_auc > 0.55)", "slices.all(s, ", "gates[2].rule: expected a CEL expression, got"),
        ("approvals: 1", "approvals: -1", "release.approvals: expected a whole number, 0 or more, got the number -1"),
        (
            "approvals: 1",
            "approvals: yes",
            "release.approvals: expected a whole number, 0 or more, got the true or fal",
        ),
        ("steps: [5, 25, 50]", "steps: [25, 5]", "release.canary.steps: expected rising percents from 1 to 99"),
        ("steps: [5, 25, 50]", "steps: [5, half]", "release.canary.steps[1]: expected a whole number, got 'half'"),
        (
            "slo: {",
            "load_test: {requests: -1}\n  slo: {",
            "release.load_test.requests: expected a whole number, 0 or more, got the number -1",
        ),
        (
            "slo: {",
            "load_test: {concurrency: 65}\n  slo: {",
            "release.load_test.concurrency: expected at most 64 requests at once, got 65",
        ),
        (
            "slo: {",
            "load_test: {rows: 1001}\n  slo: {",
            "release.load_test.rows: expected at most 1000 rows a request, got 1001",
        ),
        (
            "slo: {",
            "shadow: {request: 5}\n  slo: {",
            "relevo.yaml:25: release.shadow.request: unknown key; expected one of minutes, requests, share, "
            "max_difference, min_agreement, got 'request'; did you mean 'requests'?",
        ),
        ("slo: {", "shadow: {share: 0}\n  slo: {", "release.shadow.share: expected a share above 0, up to 1, got"),
        ("slo: {", "shadow: {requests: 0}\n  slo: {", "release.shadow.requests: expected a whole number, 1 or more"),
        (
            "slo: {",
            "shadow: {max_difference: -1}\n  slo: {",
            "release.shadow.max_difference: expected a number, 0 or more, got",
        ),
        (
            "slo: {",
            "shadow: {min_agreement: 99}\n  slo: {",
            "release.shadow.min_agreement: expected a share from 0 to 1, got the number 99",
        ),
        ("error_rate: 0.001", "error_rate: 2", "release.slo.error_rate: expected a share from 0 to 1, got the number"),
        ("slices: [origin, carrier]", "slices: [orign]", "slices are inputs; expected one of carrier, origin"),
        ("{age: 28d}", "{aeg: 28d}", "retrain.when.any_of[1].aeg: unknown key; expected one of performance_drop, age"),
        ("{age: 28d}", "{age: 28d, drift: 0.1}", "any_of[1]: expected exactly one of performance_drop, age, drift"),
        ('"2 of 3"', '"3 of 2"', "retrain.when.windows: expected text such as '2 of 3'"),
        ('"14 per 365d"', '"14 a year"', "retrain.guards.at_most: expected text such as '14 per 365d', got '14 a y"),
        ("freeze_without_labels: true", "freeze_without_labels: maybe", "expected true or false, got 'maybe'"),
        ("retrain:\n", "retrain: 3\nmore:\n", "relevo.yaml:28: retrain: expected a block of keys, got the number 3"),
    ],
)
def test_a_mistake_names_its_line_and_what_was_expected(old: str, new: str, expected: str) -> None:
    problems = _problems(_changed(old, new))
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith("relevo.yaml:") for problem in problems)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("holdout: 20%", "holdout: 14d", "got '14d': without ask.at there is no most recent part of that length"),
        ("holdout: 20%", "window: {sliding: 9d}", "a sliding window needs ask.at"),
        ("source: data}\ntr", "source: data, available_after: 6h}\ntr", "a wait for labels counts from ask.at"),
        ("ask: {", "ask: {at: when, ", "sources.data has no event_time, so nothing can be asked at a time"),
        ("ask: {", "features: churn.features\nask: {", "features are looked up as known at ask.at"),
    ],
)
def test_what_needs_event_time_is_refused_without_it(old: str, new: str, expected: str) -> None:
    problems = _problems(_changed(old, new, PLAIN))
    assert any(expected in problem for problem in problems), problems


def test_every_problem_is_listed_at_once_in_the_order_of_the_lines() -> None:
    text = _changed("owner:", "ownr:")
    text = _changed("roc_auc\n", "roc_acu\n", text)
    text = _changed("cool_down: 14d", "cool_down: soon", text)
    lines = [int(problem.split(":")[1]) for problem in _problems(text)]
    assert lines == [1, 2, 17, 30]


def test_a_forgotten_ask_at_is_one_problem() -> None:
    assert len(_problems(_changed(" at: scheduled_at,", ""))) == 1


def test_a_hundred_problems_are_enough() -> None:
    problems = _problems("a: b\n" * 300)
    assert len(problems) == 101
    assert problems[-1].endswith("more")


def test_each_missing_block_is_named_once() -> None:
    problems = _problems("model: churn\n")
    assert [p.split("'")[1] for p in problems] == ["owner", "task", "package", "sources", "ask", "label", "training"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "relevo.yaml:1: expected a block of keys such as 'model: flight-delay', got an empty file"),
        ("- a\n- b", "relevo.yaml:1: expected a block of keys such as 'model: flight-delay', got a list"),
        ("model: x\ntask: [", "relevo.yaml:2: not valid YAML: "),
        ("\x00", "relevo.yaml:1: not valid YAML: "),
        ("a: b\n---\nc: d\n", "relevo.yaml:2: not valid YAML: but found another document"),
        ("model: !!python/object:os.system x", "relevo.yaml:1: model: expected a name such as flight-delay, got "),
        ("sources: &a {x: *a}", "relevo.yaml:1: sources.x.x: unknown key"),
        ("[" * 2000, "relevo.yaml:1: not valid YAML"),
        ("owner: " + "a" * 200_000, "relevo.yaml:1: expected at most 200000 characters, got 200007"),
    ],
)
def test_what_is_not_a_contract_at_all_is_refused(text: str, expected: str) -> None:
    assert any(problem.startswith(expected) for problem in _problems(text))


def test_durations_are_written_as_they_are_read() -> None:
    for text in ("30s", "90m", "6h", "14d", "36h"):
        duration = parse_duration(text)
        assert duration is not None
        assert format_duration(duration) == text
    assert format_duration(timedelta(0)) == "0s"
    assert parse_duration("4w") == timedelta(weeks=4)
    assert [parse_duration(text) for text in ("", "6", "h", "-1h", "6 h", "1e9d")] == [None] * 6


KINDS = """\
sources:
  data: {files: "data/**/*.csv", key: [row], event_time: at, load: incremental, lateness: 2d, keep: 90d}
  asked: {query: "SELECT a::text, b FROM t WHERE at > :since AND note <> '12:30'", connection: house, key: [row]}
  lake: {table: /data/lake, key: [row], checks: "churn.checks:Lake", on_failure: quarantine}
"""


def _with_kinds(old: str = "", new: str = "") -> str:
    kinds = _changed(old, new, KINDS) if old else KINDS
    return _changed(
        "ask: {", "ask: {at: at, ", _changed(PLAIN.split("\n")[4] + "\n" + PLAIN.split("\n")[5] + "\n", kinds, PLAIN)
    )


def test_each_kind_of_source_is_read() -> None:
    files, query, table = parse_contract(_with_kinds()).sources
    assert (files.files, files.load, files.lateness, files.keep) == (
        "data/**/*.csv",
        "incremental",
        timedelta(days=2),
        timedelta(days=90),
    )
    assert (query.connection, query.loader, query.load, query.keep) == ("house", None, "full", None)
    assert (table.table, table.on_failure) == ("/data/lake", "quarantine")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('files: "data/**/*.csv"', 'file: "data/**/*.csv"', "got 'file'; did you mean 'files'?"),
        (
            'files: "data/**/*.csv", ',
            "",
            "relevo.yaml:6: sources.data: missing key; expected exactly one of loader, fi",
        ),
        (
            "{table: /data",
            '{files: "a.csv", table: /data',
            "expected exactly one of loader, files, query, table, got 'fi",
        ),
        (
            "*.csv",
            "*.xlsx",
            "relevo.yaml:6: sources.data.files: expected a pattern that ends in .parquet, .csv, .jsonl",
        ),
        ('"data/**', '"../data/**', "sources.data.files: expected a pattern such as data/orders/*.parquet inside the"),
        ('"data/**', '".data/**', "sources.data.files: hidden files do not travel with the project"),
        (
            ":since",
            ":from",
            "relevo.yaml:7: sources.asked.query: expected no parameter but :since and :until, got :from",
        ),
        (", connection: house", "", "sources.asked: missing key 'connection'; expected the name of the connection"),
        ("{table: /data", "{connection: house, table: /data", "a connection is asked a query, and this source has"),
        (
            "house",
            "My-House",
            "sources.asked.connection: expected the name of a connection such as warehouse, whose URL",
        ),
        ("table: /data/lake", "table: lake", "sources.lake.table: expected the absolute path of a Delta table, on the"),
        (
            "event_time: at, ",
            "",
            "sources.data.load: an incremental load goes by time, and this source has no event_time",
        ),
        ("load: incremental, ", "", "sources.data.lateness: lateness is how far back an incremental load reads again"),
        ("load: incremental", "load: increment", "got 'increment'; did you mean 'incremental'?"),
        ("on_failure: quarantine", "on_failure: quarantene", "got 'quarantene'; did you mean 'quarantine'?"),
        (
            'checks: "churn.checks:Lake", ',
            "",
            "on_failure says what is done about rows that fail the checks; there are",
        ),
        ("keep: 90d", "keep: 0d", "sources.data.keep: expected a duration above zero"),
        ("  lake:", "  data__quarantine:", "expected a name that does not end in __quarantine"),
    ],
)
def test_mistakes_in_a_source_are_named(old: str, new: str, expected: str) -> None:
    assert any(expected in problem for problem in _problems(_with_kinds(old, new)))


def test_a_url_in_the_contract_is_refused_and_not_repeated() -> None:
    problems = "\n".join(_problems(_with_kinds("house", '"postgresql://me:hunter2@db/house"')))
    assert "a contract holds none, for a URL may hold a password" in problems
    assert "hunter2" not in problems

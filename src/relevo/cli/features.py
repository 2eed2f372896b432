"""``relevo features``: the views of models, who uses them, and the proof that what was served is what training sees."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.models import event_time
from relevo.cli.terminal import explain, moment, say, show_json, table
from relevo.contract.durations import format_duration, parse_duration
from relevo.errors import Invalid

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

features_app = typer.Typer(help="Feature views.", no_args_is_help=True, rich_markup_mode=None)

#: Millions of logged rows take minutes to recompute.
PATIENCE_SECONDS = 3600.0


@features_app.command("list")
def list_views(
    model: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None, as_json: Json = False
) -> None:
    """List feature views: how far each is filled, and how fresh it is."""
    client = Client.from_settings()
    found = client.get("/api/features" if model is None else f"/api/models/{model}/features")
    if as_json:
        show_json(found)
        return
    rows = [
        [
            one["model"], f"{one['view']}:{one['definition']}", ", ".join(one["key"]), one["source"],
            ", ".join(one["features"]), moment(one["filled_through"]) or "not yet", moment(one["newest_at"]) or "-",
            _freshness(one), ", ".join(f"v{number}" for number in one["versions"]) or "-",
        ]
        for one in found
    ]  # fmt: skip
    columns = ["model", "view", "key", "source", "features", "filled through", "newest row", "freshness", "on gateway"]
    skip = 0 if model is None else 1
    table(columns[skip:], [row[skip:] for row in rows], empty="No feature view.")


@features_app.command("impact")
def show_impact(
    view: Annotated[str, typer.Argument(help="Name of a view, or NAME:DEFINITION for one definition of it.")],
    as_json: Json = False,
) -> None:
    """Show which models, contract revisions, versions and endpoints use a feature view."""
    found = Client.from_settings().get(f"/api/features/{view}/impact")
    if as_json:
        show_json(found)
        return
    rows = [
        [
            one["model"], f"{one['view']}:{one['definition']}",
            f"{_numbers(one['revisions'])}{', in force' if one['is_declared'] else ''}",
            ", ".join(f"v{use['version']} {use['stage']}" for use in one["versions"]) or "-",
            f"{one['percent']:g} %",
        ]
        for one in found
    ]  # fmt: skip
    table(["model", "view", "contract revisions", "versions", "traffic"], rows, empty="Nobody uses it.")


@features_app.command()
def parity(
    model: Model,
    last: Annotated[
        str | None,
        typer.Option(
            help="How far back in event time, such as 24h or 7d: from the endpoint's now, or from its newest "
            "prediction when that is older. Default: 24h."
        ),
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="First event time, such as 2013-08-15T00:00Z.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last event time.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Compare at most about so many predictions. Default: 1000000.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute logged feature values from the sources, and name each difference; exit status 1 when there is one."""
    body: dict[str, object] = {
        "last_seconds": None if last is None else _seconds(last),
        "start": None if start is None else event_time(start, "--from").isoformat(),
        "end": None if end is None else event_time(end, "--to").isoformat(),
        "limit": limit,
    }
    asked = {name: value for name, value in body.items() if value is not None}
    client = Client.from_settings(timeout_seconds=PATIENCE_SECONDS)
    found = client.post(f"/api/models/{model}/features/parity", asked)
    if as_json:
        show_json(found)
    else:
        _show_parity(found)
    if found["different"]:
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    length = parse_duration(text)
    if length is None or length.total_seconds() <= 0:
        raise Invalid(f"--last needs a duration such as 24h or 7d, got {text!r}.", field="last")
    return length.total_seconds()


def _show_parity(found: dict[str, Any]) -> None:
    versions = ", ".join(f"v{number}" for number in found["versions"])
    say(f"{found['model']}, {moment(found['event_from'])} to {moment(found['event_to'])}, {versions}", "bold")
    sampled = "" if found["sampled"] == found["rows"] else f", {found['sampled']:,} of them compared"
    facts = {"predictions": f"{found['rows']:,}{sampled}"}
    facts["values"] = f"{found['compared']:,} looked up: {found['exact']:,} equal"
    if found["close"]:
        facts["values"] += f", {found['close']:,} within 1e-9"
    if found["sent"]:
        facts["sent"] = f"{found['sent']:,} values by the caller, not compared"
    if found["unlogged"]:
        facts["not logged"] = (
            f"{found['unlogged']:,} predictions of a time when the log did not tell what was looked up"
        )
    if found["unfilled"]:
        facts["not filled"] = f"{found['unfilled']:,} predictions from before the views were filled: nulls"
    if found["lag"]:
        facts["lag"] = _lag(found["lag"])
    for name, fact in facts.items():
        explain_fact(name, fact)
    _say_verdict(found)
    say("")
    rows = [
        [
            one["feature"], one["view"], one["compared"], one["exact"], one["close"], one["different"], one["behind"],
            one["sent"],
        ]
        for one in found["features"]
    ]  # fmt: skip
    columns = ["feature", "view", "compared", "equal", "within 1e-9", "different", "behind", "sent"]
    table(columns, rows, empty="No feature was looked up: the model has no views.")
    examples = [
        [
            one["feature"], moment(example["asked_at"]), _entity(example["entity"]), _value(example["logged"]),
            _value(example["expected"]), _value(example["online"]), example["cause"],
        ]
        for one in found["features"]
        for example in one["examples"]
    ]  # fmt: skip
    if examples:
        say("")
        columns = ["feature", "asked at", "entity", "served", "by the sources", "online now", "cause"]
        table(columns, examples, empty="")


def explain_fact(name: str, fact: str) -> None:
    """A fact on a line of its own, with its name before it."""
    say(Text(f"  {name:<12}", style="dim") + Text(fact))


def _say_verdict(found: dict[str, Any]) -> None:
    if not found["compared"]:
        explain("Nothing was looked up here, so nothing is proved.", "yellow")
    elif not found["different"]:
        say(f"{'':2}{'different':<12}0", "green")
    else:
        say(f"{'':2}{'different':<12}{found['different']:,}", "red")
        for cause, count in found["causes"].items():
            explain(f"    {count:,} {cause}: {found['words'][cause]}.", "")


def _lag(lag: dict[str, Any]) -> str:
    behind = f"; {lag['behind']:,} values would have been others, had the store been current" if lag["behind"] else ""
    times = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("max", "at most"))
    return ", ".join(f"{word} {lag[f'{name}_seconds']:.3g} s" for name, word in times) + behind


def _entity(entity: dict[str, object]) -> str:
    return ", ".join(str(value) for value in entity.values())


def _value(value: object) -> str:
    return "null" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _freshness(line: dict[str, Any]) -> Text:
    if line["fresh_within_seconds"] is None:
        return Text("no limit", style="dim")
    limit = format_duration(timedelta(seconds=line["fresh_within_seconds"]))
    if line["is_fresh"] is None:
        return Text(f"not filled, limit {limit}", style="dim")
    return (
        Text(f"fresh, limit {limit}", style="green") if line["is_fresh"] else Text(f"stale, limit {limit}", style="red")
    )


def _numbers(numbers: list[int]) -> str:
    """Numbers with runs joined: ``1-3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "-"

"""``relevo datasets``: what was loaded, from which code, and how two versions differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.terminal import explain, moment, say, show_json, table
from relevo.datasets.naming import find

if TYPE_CHECKING:
    from relevo.datasets.differences import Comparison

datasets_app = typer.Typer(help="The data that models learn from, in versions.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="SOURCE, or MODEL/SOURCE where several models have one of that name.")]
Version = Annotated[int | None, typer.Option(min=0, help="Its number; the newest when left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

#: A comparison or profile of a large table is computed while the command waits.
_PATIENCE_SECONDS = 330.0


@datasets_app.command("list")
def list_datasets(
    model: Annotated[str | None, typer.Argument(help="One model; all when left out.")] = None, as_json: Json = False
) -> None:
    """List every dataset with its newest version, and who loaded it from which code."""
    found = Client.from_settings().get("/api/datasets", model=model)["datasets"]
    if as_json:
        show_json(found)
        return
    if not found:
        say("No dataset yet: a training run loads the sources of its model.", "dim")
    for of_model in dict.fromkeys(one["model"] for one in found):
        say(of_model, "bold")
        _list([one for one in found if one["model"] == of_model])


@datasets_app.command("show")
def show_dataset(name: Name, version: Version = None, as_json: Json = False) -> None:
    """Show one version: its schema, checks and changes, where it comes from, what was trained on it."""
    client = Client.from_settings()
    view = client.get(_path(client, name), version=version)
    if as_json:
        show_json(view)
        return
    _show_facts(view)
    one = view["version"]
    if one["changes"]:
        say(f"\nChanges since version {view['before']}", "bold")
        for change in one["changes"]:
            say(f"  {change}")
    say("\nColumns", "bold")
    _show_schema(view)
    if one["checks"]:
        say("\nChecks", "bold")
        _show_checks(one["checks"])


@datasets_app.command("history")
def show_history(
    name: Name,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """List the versions of a dataset, the newest first."""
    client = Client.from_settings()
    found = client.get(_path(client, name) + "/history")["versions"]
    if as_json:
        show_json(found)
        return
    rows = [
        [one["version"], one["rows"], _day(one["known_through"]), moment(one["created_at"]), one["digest"][:8],
         _findings(one)]
        for one in found[:lines]
    ]  # fmt: skip
    table(["version", "rows", "known through", "loaded", "content", "notes"], rows, empty="")
    if len(found) > lines:
        explain(f"{len(found) - lines} earlier ones: --lines {len(found)}")


@datasets_app.command("diff")
def diff(
    name: Name,
    before: Annotated[int | None, typer.Argument(min=0, help="A version; the one before AFTER when left out.")] = None,
    after: Annotated[int | None, typer.Argument(min=0, help="A later one; the newest when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two versions of a dataset: schema, rows, cells, and each column at a glance."""
    client = Client.from_settings(timeout_seconds=_PATIENCE_SECONDS)
    answer = client.get(_path(client, name) + "/diff", before=before, after=after)
    if as_json:
        show_json(answer)
        return
    from relevo.datasets.differences import Comparison
    from relevo.platform.encoding import parse

    _show_comparison(f"{name} {answer['before']} → {answer['after']}", parse(Comparison, answer["comparison"]))


@datasets_app.command("profile")
def profile(
    name: Name,
    version: Version = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: SOURCE-VERSION.html here.")] = None,
) -> None:
    """Write a version's profile, a page of HTML that stands alone: distributions, nulls, associations, sample rows."""
    client = Client.from_settings(timeout_seconds=_PATIENCE_SECONDS)
    path = _path(client, name)
    number = client.get(path, version=version)["version"]["version"]
    page = client.get_text(path + "/profile", version=number)
    file = output or Path(f"{path.rpartition('/')[2]}-{number}.html")
    file.write_text(page, encoding="utf-8")
    say(f"{file}  {name} version {number}; open it in a browser.")


def _path(client: Client, name: str) -> str:
    known = [(one["model"], one["source"]) for one in client.get("/api/datasets")["datasets"]]
    model, source = find(name, known)
    return f"/api/datasets/{model}/{source}"


def _name(one: dict[str, Any]) -> str:
    return f"{one['model']}/{one['source']}"


def _day(at: str | None) -> str:
    return "-" if at is None else at[:10]


def _list(lines: list[dict[str, Any]]) -> None:
    rows = [
        [one["source"], one["version"], one["rows"], _day(one["known_through"]), _day(one["created_at"]),
         one["provenance"]["applied_by"] or "-", (one["provenance"]["git_commit"] or "-")[:8], one["digest"][:8]]
        for one in lines
    ]  # fmt: skip
    table(["dataset", "version", "rows", "known through", "loaded", "by", "code", "content"], rows, empty="")
    for one in lines:
        if one["failed_checks"]:
            say(f"Checks of {one['source']} fail: relevo datasets show {_name(one)}", "yellow")


def _findings(version: dict[str, Any]) -> str:
    """What stands out about a version, in a few words."""
    failed = sum(check["failed"] > 0 for check in version["checks"])
    said = [
        "incremental" if version["mode"] == "incremental" else "",
        "schema changed" if version["changes"] else "",
        ("1 check fails" if failed == 1 else f"{failed} checks fail") if failed else "",
        f"{version['quarantined']:,} quarantined" if version["quarantined"] else "",
        "rows collected" if version["collected_at"] else "",
    ]
    return ", ".join(text for text in said if text)


def _show_facts(view: dict[str, Any]) -> None:
    one, provenance = view["version"], view["provenance"]
    newest = "the newest" if one["version"] == view["newest"] else f"the newest is {view['newest']}"
    quarantined = f", {one['quarantined']:,} more are quarantined" if one["quarantined"] else ""
    commit = f", git {provenance['git_commit'][:12]}" if provenance["git_commit"] else ""
    facts = {
        "rows": f"{one['rows']:,}{quarantined}",
        "named by": ", ".join(view["names"]) or "no column",
        "known through": moment(one["known_through"]) or "no times",
        "content": one["digest"],
        "loaded": f"{moment(one['created_at'])}, {one['mode']}, in {one['workflow_id']}",
        "code": f"snapshot {one['snapshot'][:12]}{commit}",
        "applied by": _applied(provenance),
        "trained on it": _references(view["references"]),
    }
    if one["collected_at"]:
        facts["rows kept"] = f"no: collected at {moment(one['collected_at'])}"
    say(f"{_name(one)} version {one['version']} ({newest})", "bold")
    for name, fact in facts.items():
        say(Text(f"  {name:<14}", style="dim") + Text(fact))


def _applied(provenance: dict[str, Any]) -> str:
    if provenance["revision"] is None:
        return "no contract on record has this code"
    return f"{provenance['applied_by']}, revision {provenance['revision']} of the contract"


def _references(references: list[dict[str, Any]]) -> str:
    said = [f"v{one['model_version']} ({one['stage']}, run {one['run_id'][:12]})" for one in references]
    return ", ".join(said) or "no version of the model"


def _show_schema(view: dict[str, Any]) -> None:
    from relevo.datasets.wording import kind

    rows = [
        [name, kind(each), "names a row" if name in view["names"] else ""]
        for name, each in view["version"]["columns"].items()
    ]
    table(["column", "type", ""], rows, empty="It has none.")


def _show_checks(checks: list[dict[str, Any]]) -> None:
    rows = [
        [
            check["rule"],
            Text("passes", style="green") if not check["failed"] else Text(check["action"], style="yellow"),
            check["failed"],
            check["rows"],
            "; ".join(check["sample"]),
        ]
        for check in checks
    ]
    table(["rule", "", "failed", "of rows", "for example"], rows, empty="")


def _show_comparison(title: str, found: Comparison) -> None:
    from relevo.datasets.wording import differences, differs, from_to, row_words, schema_words

    say(title, "bold")
    explain(f"Rows: {from_to(f'{found.rows_before:,}', f'{found.rows_after:,}')}; {row_words(found)}.", "")
    if found.note:
        explain(found.note)
    for word, examples in (("added", found.added_rows), ("removed", found.removed_rows)):
        for row in examples:
            say(Text(f"  {word:<8}", style="dim") + Text(row))
    changed = [column for column in found.columns if differs(column)]
    for column in changed:
        say(Text(f"\n{column.name}  ", style="bold") + Text(schema_words(column), style="dim"))
        if said := differences(column):
            explain(f"  {'; '.join(said)}", "")
        for cell in column.examples:
            say(Text(f"  {cell.row}: ", style="dim") + Text(f"{cell.before} → {cell.after}"))
    others = len(found.columns) - len(changed)
    explain(f"\n{others} {'column does' if others == 1 else 'columns do'} not differ." if others else "")

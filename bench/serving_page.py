"""The figures of ``serving.py`` on the terminal, and in ``docs/benchmarks/serving.md`` between its marks."""

from __future__ import annotations

from collections.abc import Iterator

from page import DOCS, Columns, Row, fill, goals_table, markdown
from report import Report, show
from served_models import MODELS
from serving_chart import draw
from serving_figures import SHARES, count, rows_of

PAGE, PICTURE = DOCS / "serving.md", DOCS / "serving.svg"

COLUMNS: Columns = {
    "callers": ("callers", "d"),
    "server": ("server", ""),
    "requests_per_second": ("requests/s", ",.0f"),
    "of_best_peer": ("times the best peer", ",.2f"),
    "of_limit": ("of bare uvicorn", ".3f"),
    "p50_ms": ("p50 ms", ",.2f"),
    "p99_ms": ("p99 ms", ",.2f"),
    "cpu_us_per_request": ("CPU µs", ",.0f"),
}


def show_all(report: Report) -> None:
    """Print every table but the goals."""
    for workload, rows, lines in _tables(report):
        show(f"{workload}, {count(rows, 'row')} a request", lines, COLUMNS)
    print(report.checks)


def write_page(report: Report) -> None:
    """Put the tables of this run between the marks of the page, and draw the picture beside it."""
    models, features = [], []
    for workload, rows, lines in _tables(report):
        part = models if workload in MODELS else features
        heading = f"{MODELS[workload][0]} (*{workload}*)" if workload in MODELS else f"*{workload}*"
        part.append(f"{heading}, {count(rows, 'row')} a request:\n\n{markdown(lines, COLUMNS)}")
    goals, about = goals_table(report.goals), _about(report)
    picture = f"![Requests a second of Relevo, other servers of models, and bare uvicorn]({PICTURE.name})"
    fill(
        PAGE,
        {
            "picture": picture,
            "goals": goals,
            "models": "\n\n".join(models),
            "features": "\n\n".join(features),
            "run": about,
        },
    )
    draw(report, PICTURE)


def _tables(report: Report) -> Iterator[tuple[str, int, list[Row]]]:
    cases = dict.fromkeys((row["workload"], row["rows"]) for row in report.summary)
    for workload in (*MODELS, *SHARES):
        for rows in (rows for name, rows in cases if name == workload):
            callers = dict.fromkeys(row["callers"] for row in report.summary)
            yield workload, rows, [line for each in callers for line in rows_of(report, workload, rows, each)]


def _about(report: Report) -> str:
    """The machine, the versions and the checks of this run."""
    checks, machine = report.checks, report.machine()
    lines = [
        f"- {machine['processor']}, {count(machine['cores'], 'core')}; Linux {machine['kernel']}, "
        f"Python {machine['python']}; load average {machine['load_before'][0]:.1f} before and "
        f"{machine['load_after'][0]:.1f} after. {count(report.settings['rounds'], 'round')} of "
        f"{count(report.settings['seconds'], 'second')} each.",
        "- "
        + ", ".join(f"{name.removesuffix(' (peer)')} {version}" for name, version in report.versions.items())
        + ".",
        f"- {checks['answers_compared']:,} answers compared, largest difference {checks['largest_difference']:.1g}; "
        f"{checks['answers_counted']:,} requests counted by Relevo, {checks['answers_logged']:,} in its log.",
        f"- A sync of 400 bytes took {checks['fdatasync_us']:,.0f} µs, median; an idle worker takes "
        f"{checks['idle_cpu_share']:.1%} of a core.",
    ]
    lines += [f"- Left out: {what}: {_last(why)}" for what, why in checks["missing"].items()]
    return "\n".join(lines)


def _last(why: str) -> str:
    """What failed, and the last of a server's words about it; the lines before name files of this machine."""
    what, _, words = why.partition(": ")
    return f"{what}: {words.rpartition(' / ')[2].strip()}"

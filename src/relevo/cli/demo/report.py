"""What came of the demo: figures, a table by month, and one picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.demo.traffic import Tally
from relevo.cli.terminal import console, table

#: States of a release that has not ended.
UNDER_WAY = {"training", "waiting_for_approval", "shadow", "canary"}
END = "2014-01-01T00:00:00Z"
#: The parity proof at the end: the last week that was predicted in, and about so many predictions of it.
PARITY_SECONDS, PARITY_ROWS = 7 * 86_400, 20_000


@dataclass(frozen=True, slots=True)
class Month:
    """One month of the replay. Metrics of what was live beside those of the first model left alone."""

    month: str
    predictions: int
    label_rate: float
    auc_live: float | None
    auc_first_model: float | None
    log_loss_live: float | None
    log_loss_first_model: float | None
    drift: float
    events: list[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a gate kept out, until the next version went live: log loss of what was live, and of the refused version.

    ``log_loss_refused`` below ``log_loss_live`` is what the gate cost; above it, what the gate saved.
    """

    version: int
    since: str
    until: str
    labels: int
    log_loss_live: float
    log_loss_refused: float


@dataclass(frozen=True, slots=True)
class Parity:
    """Feature values served in the last days, held against what the sources give; how far the online store lagged."""

    compared: int
    different: int
    lag_p50_seconds: float
    lag_p99_seconds: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the demo measured."""

    seconds: float
    predictions_acknowledged: int
    predictions_logged: int
    labels_sent: int
    labels_joined: int
    requests: int
    requests_failed: int
    failures: list[str]
    retrainings: int
    promotions: int
    rejections: int
    under_way: int
    refusals: list[Refusal]
    parity: Parity
    months: list[Month]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def gather(client: Client, model: str, tally: Tally, *, seconds: float) -> Figures:
    """Ask Relevo for its side of the story, and put the application's beside it."""
    counts = client.get(f"/api/models/{model}/log")
    releases = client.get("/api/releases", model=model)
    challengers = [release for release in releases if release["requested_by"] == "relevo"]
    return Figures(
        seconds=round(seconds, 1),
        predictions_acknowledged=tally.predictions,
        predictions_logged=counts["predictions_logged"],
        labels_sent=tally.labels,
        labels_joined=counts["labels_joined"],
        requests=tally.requests,
        requests_failed=tally.failed,
        failures=tally.failures,
        retrainings=len(challengers),
        promotions=sum(release["state"] == "live" for release in challengers),
        rejections=sum(release["state"] == "rejected" for release in challengers),
        under_way=sum(release["state"] in UNDER_WAY for release in challengers),
        refusals=[_refusal(client, model, release, releases) for release in releases if release["state"] == "rejected"],
        parity=_parity(client, model),
        months=_months(client, model, releases),
    )


def _refusal(client: Client, model: str, refused: dict[str, Any], releases: list[dict[str, Any]]) -> Refusal:
    """Ask the refused version again about every window between its refusal and the next version that went live."""
    since = refused["event_at"]
    later = [release["event_at"] for release in releases if release["state"] == "live" and release["event_at"] > since]
    until = min(later, default=END)
    version = refused["version"]
    windows = client.get(f"/api/models/{model}/performance", by="window", version=version, since=since, until=until)[
        "periods"
    ]
    labels, live, again = 0, 0.0, 0.0
    for one in windows:
        if one["labels"]:
            labels += one["labels"]
            live += one["labels"] * one["metrics"]["log_loss"]["value"]
            again += one["labels"] * one["rescored"]["log_loss"]["value"]
    count = max(labels, 1)
    return Refusal(version, since[:10], until[:10], labels, round(live / count, 5), round(again / count, 5))


def _parity(client: Client, model: str) -> Parity:
    asked = {"last_seconds": PARITY_SECONDS, "limit": PARITY_ROWS}
    found = client.post(f"/api/models/{model}/features/parity", asked)
    lag = found["lag"] or {"p50_seconds": 0.0, "p99_seconds": 0.0}
    return Parity(found["compared"], found["different"], lag["p50_seconds"], lag["p99_seconds"])


def _months(client: Client, model: str, releases: list[dict[str, Any]]) -> list[Month]:
    periods = client.get(f"/api/models/{model}/performance", by="month", version=1)["periods"]
    events: dict[str, list[str]] = {}
    for release in reversed(releases):
        what = {"live": "live", "rejected": "rejected", "rolled_back": "rolled back", "failed": "failed"}
        if release["state"] in what and release["version"]:
            events.setdefault(release["event_at"][:7], []).append(f"v{release['version']} {what[release['state']]}")
    return [
        Month(
            month=period["start"][:7],
            predictions=period["predictions"],
            label_rate=round(period["label_coverage"], 4),
            auc_live=_value(period["metrics"], "roc_auc"),
            auc_first_model=_value(period["rescored"], "roc_auc"),
            log_loss_live=_value(period["metrics"], "log_loss"),
            log_loss_first_model=_value(period["rescored"], "log_loss"),
            drift=round(period["drift_share"], 4),
            events=events.get(period["start"][:7], []),
        )
        for period in periods
        if period["predictions"]
    ]


def _value(metrics: dict[str, dict[str, float | None]], metric: str) -> float | None:
    value = metrics.get(metric, {}).get("value")
    return None if value is None else round(value, 5)


def show(figures: Figures, picture: Path, url: str) -> None:
    """Print the table, the means, and where to look."""
    rows = [
        [
            month.month,
            f"{month.predictions:,}",
            f"{month.label_rate:.1%}",
            f"{month.drift:.0%}",
            _better(month.auc_live, month.auc_first_model, greater=True),
            _number(month.auc_first_model),
            _better(month.log_loss_live, month.log_loss_first_model, greater=False),
            _number(month.log_loss_first_model),
            ", ".join(month.events),
        ]
        for month in figures.months
    ]
    columns = ["month", "predictions", "labelled", "drifted", "AUC", "first", "log loss", "first", "events"]
    table(columns, rows, empty="No month was replayed.")
    console.print(
        f"\n{figures.predictions_acknowledged:,} predictions acknowledged, {figures.predictions_logged:,} logged, "
        f"{figures.labels_joined:,} labels joined, {figures.requests_failed} of {figures.requests:,} requests failed.\n"
        f"{figures.retrainings} retrainings: {figures.promotions} promoted, {figures.rejections} rejected"
        f"{f', {figures.under_way} under way' if figures.under_way else ''}. {_difference(figures)}"
    )
    parity = figures.parity
    console.print(
        f"{parity.compared:,} served feature values recomputed from the sources: {parity.different:,} different; the "
        f"online store was {parity.lag_p50_seconds:.3g} s behind (median), {parity.lag_p99_seconds:.3g} s (99 of 100)."
    )
    for refusal in figures.refusals:
        console.print(_in_words(refusal), soft_wrap=True)
    console.print(f"{figures.seconds:.0f} s in all.\n")
    console.print(Text("Picture  ", style="bold") + Text(str(picture)))
    console.print(Text("Console  ", style="bold") + Text(url, style="cyan"))
    console.print(Text(f"Sign in with the token in {picture.parent / 'cli.json'}", style="dim"), soft_wrap=True)


def draw(figures: Figures, path: Path) -> Path:
    """The picture: AUC and log loss by month, what was live beside the first model left alone."""
    from relevo.console.charts import figure_months

    path.write_text(figure_months(figures.as_json()["months"]))
    return path


def _difference(figures: Figures) -> str:
    pairs = [(m.auc_live, m.auc_first_model) for m in figures.months]
    known = [live - first for live, first in pairs if live is not None and first is not None]
    if not known:
        return ""
    return f"On average {sum(known) / len(known):+.4f} AUC a month against the first model left alone."


def _in_words(refusal: Refusal) -> str:
    gain = refusal.log_loss_live - refusal.log_loss_refused
    if not refusal.labels:
        return f"Version {refusal.version} was refused; no whole window passed before another went live."
    verdict = f"cost {gain:.4f}" if gain > 0 else f"saved {-gain:.4f}"
    return (
        f"The gate {verdict} in log loss by refusing version {refusal.version}: {refusal.log_loss_refused:.4f} against "
        f"{refusal.log_loss_live:.4f} of what was live, {refusal.since} to {refusal.until}."
    )


def _better(live: float | None, first: float | None, *, greater: bool) -> Text:
    text = Text(_number(live))
    if live is not None and first is not None and live != first:
        text.stylize("green" if (live > first) is greater else "red")
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

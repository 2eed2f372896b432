"""The demo in a short form: the whole loop on real flights, and what it leaves behind."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from running import Relevo, is_free

from relevo.cli.demo import LAST_DAY
from relevo.cli.demo.story import SETTLES_AFTER, TICK, example_folder
from relevo.contract.parsing import parse_contract
from relevo.datasets.loading import read_source

MONTH = {"month", "auc_live", "auc_first_model", "log_loss_live", "log_loss_first_model", "drift", "events"}


def test_the_year_s_weather_lasts_until_the_demo_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = example_folder()
    monkeypatch.syspath_prepend(str(folder))
    contract = parse_contract((folder / "relevo.yaml").read_text(), folder / "relevo.yaml")
    (weather,) = [source for source in contract.sources if source.name == "weather"]
    newest = read_source(weather, folder)["known_at"].max()
    ends = datetime.fromisoformat(f"{LAST_DAY}T00:00Z") + timedelta(days=1) + SETTLES_AFTER
    stale = [at for at in (ends - 2 * TICK, ends - TICK, ends) if at - newest > timedelta(hours=3)]
    assert stale == [ends]  # one look of three raises no alert


def test_the_demo_loses_nothing_and_its_history_answers_afterwards(tmp_path: Path) -> None:
    relevo = Relevo(tmp_path / "home")
    try:
        relevo.command("demo", "--exit", "--json", str(tmp_path / "out.json"), "--until", "2013-04-03")
        figures = json.loads((tmp_path / "out.json").read_text())
        assert figures["requests_failed"] == 0, figures["failures"]
        assert figures["predictions_acknowledged"] == figures["predictions_logged"] > 2_500
        assert figures["labels_joined"] == figures["labels_sent"] > 2_500
        assert {"seconds", "retrainings", "promotions", "rejections"} <= figures.keys()
        parity = figures["parity"]
        assert (parity["different"], parity["lag_p50_seconds"], parity["lag_p99_seconds"]) == (0, 0.0, 0.0)
        assert parity["compared"] > 2_500 * 10
        (april,) = figures["months"]
        assert april.keys() >= MONTH
        assert april["month"] == "2013-04"
        assert 0.55 < april["auc_live"] < 0.95
        assert april["auc_live"] == april["auc_first_model"]  # nothing was trained again yet
        assert (relevo.home / "demo.svg").read_text().startswith("<svg")
        assert is_free(relevo.port)
        assert is_free(relevo.gateway_port)
        relevo.start()
        assert "freshness" not in relevo.command("alerts", "flight-delay", "--all")
        assert "fresh, limit 3h" in relevo.command("features", "list", "flight-delay")
        said = relevo.command("history", "flight-delay", "--at", "2013-04-02T00:00Z")
        assert "flight-delay/1" in said
        assert "ruth" in said
        with closing(sqlite3.connect(relevo.home / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        relevo.close()

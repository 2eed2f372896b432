"""The demo in a short form: the whole loop on real flights, and what it leaves behind."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from running import Relevo, is_free

MONTH = {"month", "auc_live", "auc_first_model", "log_loss_live", "log_loss_first_model", "drift", "events"}


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
        said = relevo.command("history", "flight-delay", "--at", "2013-04-02T00:00Z")
        assert "flight-delay/1" in said
        assert "ruth" in said
        with closing(sqlite3.connect(relevo.home / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        relevo.close()

"""MLflow's own scoring client, unchanged, asks an endpoint as it would ask ``mlflow models serve``."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzzed import gateway
from gateway_home import ENDPOINT, NOW, Home

from relevo.identity.model import Role

with warnings.catch_warnings():  # MLflow warns of type hints of its own
    warnings.simplefilter("ignore")
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

ROWS = pd.DataFrame(
    {
        "distance": [1000.0, 2000.0],
        "carrier": ["UA", None],
        "seats": [180, 90],
        "is_early": [True, False],
        "booked_at": [pd.Timestamp(NOW), pd.Timestamp(NOW)],
        "origin": ["JFK", "EWR"],
    }
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield from gateway(tmp_path_factory.mktemp("mlflow") / "home")


@pytest.fixture(scope="module")
def token(fuzzed: Home) -> str:
    return fuzzed.token("an-application", Role.APPLICATION)


def client(home: Home, token: str, endpoint: str = ENDPOINT) -> ScoringServerClient:
    """The client builds ``http://HOST:PORT``, and requests takes the token from a host that has one."""
    return ScoringServerClient(f"token:{token}@127.0.0.1", f"{home.listener.getsockname()[1]}/endpoints/{endpoint}")


def test_the_client_finds_the_server_ready_and_learns_its_version(fuzzed: Home, token: str) -> None:
    asking = client(fuzzed, token)
    asking.wait_server_ready(timeout=10)
    assert asking.get_version() == importlib.metadata.version("mlflow")


def test_the_token_may_come_from_netrc(
    fuzzed: Home, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login token password {token}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    port = fuzzed.listener.getsockname()[1]
    ScoringServerClient("127.0.0.1", f"{port}/endpoints/{ENDPOINT}").ping()


def test_a_data_frame_is_predicted_with_what_is_missing_in_it(fuzzed: Home, token: str) -> None:
    answer = client(fuzzed, token).invoke(ROWS)
    assert answer.get_predictions()[0].tolist() == [2.0, 3.0]  # 1 + a thousandth of the distance
    assert answer.get_predictions("ndarray").dtype == np.float64
    assert (answer["version"], len(answer["prediction_ids"])) == (1, 2)


def test_a_missing_value_where_none_may_be_is_refused_by_name(fuzzed: Home, token: str) -> None:
    with pytest.raises(Exception, match=r"error code 400.*Column 'distance', row 0: expected a number, got null"):
        client(fuzzed, token).invoke(ROWS.assign(distance=[np.nan, 1.0]))


def test_rows_in_lists_and_arrays_are_predicted(fuzzed: Home, token: str) -> None:
    row = [1000.0, "UA", 180, True, None, 5.0, 0.1, 12.0, 1.0]
    for rows in ([row], np.array([row], dtype=object)):
        assert client(fuzzed, token).invoke(rows).get_predictions()[0].tolist() == [2.0]


def test_parameters_are_refused_by_name(fuzzed: Home, token: str) -> None:
    with pytest.raises(Exception, match="Unknown field 'params'"):
        client(fuzzed, token).invoke(ROWS, params={"temperature": 1})


def test_without_a_token_or_a_version_that_answers_the_ping_fails(fuzzed: Home, token: str) -> None:
    with pytest.raises(Exception, match=r"ping failed \(error code 401\)"):
        client(fuzzed, "none").ping()
    with pytest.raises(Exception, match=r"ping failed \(error code 404\)"):
        client(fuzzed, token, "flight-dalay").ping()
    with fuzzed.state.transaction() as tx:
        fuzzed.serving.ensure_endpoint(tx, "empty", fuzzed.serving.endpoint(ENDPOINT).settings)
    with fuzzed.client(token) as asking:
        fuzzed.eventually(lambda: asking.get("/endpoints/empty").status_code == 200)
    with pytest.raises(Exception, match=r"ping failed \(error code 503\)"):
        client(fuzzed, token, "empty").ping()

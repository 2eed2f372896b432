"""The example's views on real flights, served and trained on."""

import importlib
from datetime import UTC, datetime, timedelta

import polars as pl

from relevo.contract.parsing import parse_contract
from relevo.datasets.loading import read_source
from relevo.features.materialise import Materialiser
from relevo.features.model import FeatureView
from relevo.features.online import OnlineStore
from relevo.features.point_in_time import attach

MARCH = datetime(2013, 3, 1, tzinfo=UTC)


def test_flights_are_served_what_they_are_trained_on(flights_package, tmp_path):
    path = flights_package / "relevo.yaml"
    contract = parse_contract(path.read_text(), path)
    sources = {source.name: source for source in contract.sources}
    flights = read_source(sources["flights"], flights_package, until=MARCH + timedelta(days=30))
    module = importlib.import_module(str(contract.features))
    views = [value for value in vars(module).values() if isinstance(value, FeatureView)]
    tables = {
        name: read_source(source, flights_package, until=MARCH + timedelta(days=20)).lazy()
        for name, source in sources.items()
        if name in {view.source for view in views}
    }
    store = OnlineStore(tmp_path / "online.db")
    running = Materialiser(
        store, model="delay", views=views, sources=contract.sources, package=flights_package, origin="code"
    )
    keys = list(dict.fromkeys(key for view in views for key in view.entity.key))
    for hour in (0, 1, 9, 25):
        through = MARCH + timedelta(hours=12 + hour)
        running.materialise(through)
        asked = flights.filter(pl.col("scheduled_at").is_between(through - timedelta(hours=3), through)).sample(
            25, seed=1
        )
        asked = asked.select(*keys, at="scheduled_at")
        offline = attach(asked.lazy(), views, tables, sources=contract.sources, at="at").collect()
        online = store.lookup("delay", views, asked.to_dicts(), asked["at"].to_list())
        names = [feature.name for view in views for feature in view.features]
        assert online == offline.select(names).to_dicts()
    assert any(row["previous_arrival_delay"] is not None for row in online)
    store.close()

"""Joins, lookups and materialising of features: ours beside Feast and the bare engines.

First it is checked that all give the same; without that it ends without figures. Then they are measured in turn. Feast
and DuckDB have environments of their own, made under ``bench/.environments`` from ``bench/peers``. Needs a Redis on
127.0.0.1:6379, or redis-server to start one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from feature_figures import SHAPES, summarise
from feature_page import show_all, write_page
from measure_joins import Limits, check_flights, check_large, measure_flights, measure_large, measure_training_sets
from measure_online import measure_lookups, measure_materialising, opened
from peers import versions_of
from report import Report
from tables import entity_tables, flight_tables, large_tables

from redis_server import running_redis

FLIGHTS_YEAR = {"since": "2013-01-01T00:00:00+00:00", "until": "2014-01-03T00:00:00+00:00"}


def main() -> None:
    options = _options()
    report = Report(
        "features", {name: value for name, value in vars(options).items() if name not in ("folder", "page")}
    )
    report.versions = versions_of("feast", ("feast", "duckdb", "ibis-framework"))
    limits = Limits(options.feast_memory_gb, options.feast_minutes * 60)
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir=options.folder) as name:
        folder = Path(name)
        _join_flights(report, folder / "flights", limits, options)
        _join_large(report, folder / "large", limits, options)
        _use_online(report, folder / "online", options)
    summarise(report)
    show_all(report)
    report.write()
    if options.page:
        write_page(report)


def _join_flights(report: Report, folder: Path, limits: Limits, options: argparse.Namespace) -> None:
    tables = flight_tables(folder / "tables")
    if options.flights is not None:
        tables = tables.head(folder / "first", options.flights)
    report.settings |= {"flights_rows": tables.rows}
    _say("flights: checking that all engines give the same rows")
    check_flights(report, tables, folder, limits)
    _say("flights: measuring")
    measure_flights(report, tables, folder, options.rounds, options.feast_rounds, limits)
    measure_training_sets(report, folder, options.training_rounds)


def _join_large(report: Report, folder: Path, limits: Limits, options: argparse.Namespace) -> None:
    _say("large tables: writing and checking")
    tables = large_tables(folder / "tables", options.scale)
    report.settings |= {"large_rows": tables.rows}
    check_large(report, tables, folder, limits)
    _say("large tables: measuring")
    measure_large(report, tables, folder, options.large_rounds, limits)


def _use_online(report: Report, folder: Path, options: argparse.Namespace) -> None:
    folder.mkdir()
    one_row, many_rows = entity_tables(folder / "entities", options.entities), flight_tables(folder / "flights")
    report.settings |= {"one_row_an_entity": one_row.rows, "many_rows_an_entity": many_rows.rows}
    with running_redis(folder) as server, opened(folder, server) as stores:
        report.versions |= {"redis-server": server.version}
        _say("online stores: filling")
        measure_materialising(report, stores, many_rows, SHAPES[1], options.filling_rounds, **FLIGHTS_YEAR)
        measure_materialising(report, stores, one_row, SHAPES[0], options.filling_rounds)
        _say("online stores: looking up")
        measure_lookups(report, stores, one_row, options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of joins of the flights, and of lookups")
    parser.add_argument(
        "--feast-rounds", type=int, default=2, help="of Feast's join of the flights, the check included"
    )
    parser.add_argument("--training-rounds", type=int, default=2, help="of the whole way of a training set")
    parser.add_argument("--large-rounds", type=int, default=2, help="of the large join")
    parser.add_argument("--filling-rounds", type=int, default=3, help="of each kind of online store")
    parser.add_argument("--flights", type=int, help="how many of the flights to ask about; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of the large tables: 1 is 5 million rows asked about")
    parser.add_argument("--entities", type=int, default=50_000, help="with one row each, in the online stores")
    parser.add_argument("--feast-memory-gb", type=float, default=12.0, help="at which a join of Feast is stopped")
    parser.add_argument("--feast-minutes", type=float, default=3.0, help="after which a join of Feast is stopped")
    parser.add_argument("--folder", type=Path, help="where the tables and stores are, for the time of the run")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/benchmarks/features.md")
    return parser.parse_args()


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()

"""Traces of requests at a real collector: an HTTP server that reads the protobuf of OTLP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gateway_home import ENDPOINT, SIGNATURE, Home, body
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from relevo.errors import Invalid, Unavailable
from relevo.features.request import OnRequest, value
from relevo.runtimes.model import Column, ColumnType
from relevo.serving import tracing

PATH = f"/endpoints/{ENDPOINT}/invocations"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
TRANSFORMS = OnRequest({"half": value("distance") / 2}).transforms


class Collector:
    """Keeps the spans that it is sent, and what they say of where they come from."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/traces"
                for one in sent.resource_spans:
                    collector.resources.append({a.key: a.value.string_value for a in one.resource.attributes})
                    collector.spans += [span for scope in one.scope_spans for span in scope.spans]
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *about: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def trace(self, home: Home, request: str, **wanted: Any) -> dict[str, Span]:
        """The spans of the trace whose request has that name and these attributes, by name."""
        found: list[Span] = []

        def is_there() -> bool:
            found[:] = [one for one in self.spans if one.name == request and wanted.items() <= said(one).items()]
            return bool(found)

        home.eventually(is_there)
        return {one.name: one for one in self.spans if one.trace_id == found[-1].trace_id}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def said(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def start(home: Home, **settings: Any) -> None:
    home.endpoint(**settings)
    computed = Column("half", ColumnType.FLOAT, is_computed=True)
    signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, computed))
    home.place(1, signature=signature, transforms=TRANSFORMS)
    home.place(2, weight=1e308)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    home.serving.await_loaded(ENDPOINT, 2, 20)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with closing(Collector()) as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        environment.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        home = Home(tmp_path_factory.mktemp("traced") / "home")
        start(home)
    yield home
    home.stop()


def test_a_request_and_what_it_takes_are_spans_of_the_callers_trace(traced: Home, collector: Collector) -> None:
    with traced.client() as client:
        answer = client.post(PATH, json=body(1.0, 2.0), headers={**SAMPLED, "tracestate": "shop=7"})
    assert answer.status_code == 200
    name = "POST /endpoints/{name}/invocations"
    spans = collector.trace(traced, name, **{"http.response.status_code": 200})

    assert set(spans) == {name, "decode", "lookup", "predict", "log", "log.durable"}
    request = spans[name]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.trace_state == "shop=7"
    assert request.kind == Span.SPAN_KIND_SERVER
    assert said(request) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/endpoints/{name}/invocations",
        "relevo.endpoint": ENDPOINT,
        "relevo.rows": 2,
        "relevo.version": 1,
        "url.path": PATH,
    }
    inner = [spans[name] for name in ("decode", "lookup", "predict", "log", "log.durable")]
    assert {span.parent_span_id for span in inner} == {request.span_id}
    times = [time for span in inner for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert request.start_time_unix_nano <= times[0] <= times[-1] <= request.end_time_unix_nano
    assert said(spans["predict"])["relevo.rows"] == 2
    assert collector.resources[0]["service.name"] == "relevo-gateway"
    assert collector.resources[0]["service.instance.id"] == "gateway-0"
    assert collector.resources[0]["deployment.environment.name"] == "test"


def test_errors_are_codes_and_hold_nothing_that_a_caller_sent(traced: Home, collector: Collector) -> None:
    name = "POST /endpoints/{name}/invocations"
    with traced.client() as client:
        headers = {"traceparent": f"00-{'1' * 32}-{PARENT}-01"}
        assert client.post(PATH, json=body("secret"), headers=headers).status_code == 400  # type: ignore[arg-type]
        refused = collector.trace(traced, name, **{"http.response.status_code": 400})
        headers = {"traceparent": f"00-{'2' * 32}-{PARENT}-01", "x-relevo-version": "2"}
        assert client.post(PATH, json=body(100.0), headers=headers).status_code == 500
        failed = collector.trace(traced, name, **{"http.response.status_code": 500})

    assert said(refused["decode"])["error.type"] == "invalid"
    assert {span.status.code for span in refused.values()} == {Status.STATUS_CODE_UNSET}
    assert said(failed["predict"])["error.type"] == "NotFinite"
    assert failed["predict"].status.code == failed[name].status.code == Status.STATUS_CODE_ERROR
    assert said(failed[name])["relevo.version"] == 2
    assert not [span for span in collector.spans if "secret" in str(span)]


def test_the_sampler_and_the_callers_flag_decide_what_is_sent(traced: Home, collector: Collector) -> None:
    with traced.client() as client:
        before = len(collector.spans)
        for headers in ({}, UNSAMPLED, {"traceparent": "nonsense"}):
            assert client.post(PATH, json=body(1.0), headers=headers).status_code == 200
        assert client.get("/metrics", headers=SAMPLED).status_code == 200
        assert client.get("/health", headers=SAMPLED).status_code == 200
        last = {"traceparent": f"00-{'3' * 32}-{PARENT}-01"}
        assert client.get(f"/v2/models/{ENDPOINT}/versions/1/ready", headers=last).status_code == 200
        name = "GET /v2/models/{name}/versions/{version}/ready"
        assert set(collector.trace(traced, name)) == {name}
        assert client.get(f"/{ENDPOINT}", headers=last).status_code == 404
        assert collector.trace(traced, "GET")
    assert [span.name for span in collector.spans[before:]] == [name, "GET"]


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_is_away_or_hangs_costs_no_request_and_no_stop(
    home: Home, listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{hanging.getsockname()[1]}/v1/traces"
        )
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        if not listens:
            hanging.close()
        start(home, log="buffered")
        with home.client() as client:
            for _ in range(100):  # more spans than may wait
                assert home.predict(client).status_code == 200
        home.stop_workers()  # fails when a worker does not stop
        assert [worker.returncode for worker in home.workers] == [0]


def test_the_last_spans_are_sent_when_a_worker_stops(
    home: Home, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    start(home, log="buffered")
    with home.client() as client:
        client.get(f"/endpoints/{ENDPOINT}", headers={"traceparent": f"00-{'4' * 32}-{PARENT}-01"})
    home.stop_workers()

    assert [span.name for span in collector.spans if span.trace_id.hex() == "4" * 32] == ["GET /endpoints/{name}"]


def test_what_is_not_configured_is_not_imported() -> None:
    code = "import sys, relevo.serving.worker, relevo.serving.tracing as t; assert t.open_traces(0) is None; "
    code += "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}

    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_relevo_does_not_start_without_the_extra_when_traces_are_configured(tmp_path: Path) -> None:
    hiding = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "opentelemetry.exporter":
            raise ModuleNotFoundError("No module named 'opentelemetry.exporter'", name=name)
sys.meta_path.insert(0, Hidden())
"""
    (tmp_path / "sitecustomize.py").write_text(hiding)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "RELEVO_HOME": str(tmp_path / "home"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    }
    command = [sys.executable, "-c", "from relevo.cli import main; main()", "up"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == Unavailable.exit_status
    assert "pip install 'relevo[otel]'" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "5 %"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"}, "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_a_configuration_that_would_not_do_as_it_says_is_refused(variables: dict[str, str], field: str) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", **variables}
    with pytest.raises(Invalid) as caught:
        tracing.check(environment)
    assert caught.value.field == field

    tracing.check({**environment, "OTEL_SDK_DISABLED": "true"})
    tracing.check({**environment, "OTEL_TRACES_EXPORTER": "none"})
    tracing.check(variables)

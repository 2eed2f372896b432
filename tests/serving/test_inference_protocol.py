"""The Open Inference Protocol V2, spoken by Triton's own client over real HTTP."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from gateway_home import ENDPOINT, Home
from tritonclient.utils import InferenceServerException

from relevo.contract.model import Task
from relevo.identity.model import Role
from relevo.predictions.ids import load_key, verify
from relevo.runtimes.model import Column, ColumnType, Signature

INFER = f"/v2/models/{ENDPOINT}/infer"
TYPED = Signature(
    Task.REGRESSION,
    (
        Column("distance", ColumnType.FLOAT),
        Column("carrier", ColumnType.TEXT),
        Column("seats", ColumnType.INTEGER),
        Column("is_weekend", ColumnType.BOOLEAN),
        Column("built_at", ColumnType.TIME),
        Column("exact", ColumnType.FLOAT, nullable=False),
    ),
    at="scheduled_at",
)
NUMBERS = Signature(
    Task.REGRESSION,
    (Column("distance", ColumnType.FLOAT), Column("seats", ColumnType.INTEGER), Column("wind", ColumnType.FLOAT)),
)


def homes(home: Home, signature: Signature) -> Iterator[Home]:
    home.endpoint("buffered")
    home.place(1, weight=1.0, signature=signature)
    home.place(2, signature=signature)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    home.serving.await_loaded(ENDPOINT, 2, 20)
    yield home
    home.stop()


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield from homes(Home(tmp_path_factory.mktemp("typed") / "home"), TYPED)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield from homes(Home(tmp_path_factory.mktemp("numbers") / "home"), NUMBERS)


class Triton:
    """Triton's client, with the header that a token takes. A copy each time: the client adds headers of its own."""

    def __init__(self, home: Home, token: str | None = None) -> None:
        self.client = triton.InferenceServerClient(home.url.removeprefix("http://"))
        self._headers = {"authorization": f"Bearer {token or home.admin}"}

    @property
    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    def infer(self, *inputs: triton.InferInput, **more: Any) -> triton.InferResult:
        return self.client.infer(ENDPOINT, list(inputs), headers=self.headers, **more)

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def client(typed: Home) -> Iterator[Triton]:
    with closing(Triton(typed)) as client:
        yield client


def tensor(name: str, datatype: str, values: Any, *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def row(*, binary: bool = True, shape: tuple[int, ...] = (2,)) -> dict[str, triton.InferInput]:
    columns = {
        "distance": ("FP64", np.array([1.5, 2.5])),
        "carrier": ("BYTES", np.array(["UA", "Ñandú"], dtype=object)),
        "seats": ("INT64", np.array([180, 2**60 + 1])),
        "is_weekend": ("BOOL", np.array([True, False])),
        "built_at": ("BYTES", np.array(["2001-02-03T04:05:06Z", "2001-02-03T06:05:06+02:00"], dtype=object)),
        "exact": ("FP64", np.array([0.1, -0.0])),
    }
    return {name: tensor(name, kind, values.reshape(shape), binary=binary) for name, (kind, values) in columns.items()}


def logged(home: Home, request_id: str) -> list[list[Any]]:
    """The rows that the log has under that id."""
    found: list[list[Any]] = []

    def is_there() -> bool:
        found[:] = [row for record in home.records() if record.request_id == request_id for row in record.inputs]
        return bool(found)

    home.eventually(is_there)
    return found


def test_health_metadata_and_index_are_what_the_client_expects(typed: Home, client: Triton) -> None:
    assert client.client.is_server_live()
    assert client.client.is_server_ready(headers=client.headers)
    assert not client.client.is_server_ready()
    assert client.client.is_model_ready(ENDPOINT, headers=client.headers)
    assert client.client.is_model_ready(ENDPOINT, "2", headers=client.headers)
    assert not client.client.is_model_ready(ENDPOINT, "9", headers=client.headers)
    assert not client.client.is_model_ready("unknown", headers=client.headers)
    server = client.client.get_server_metadata(headers=client.headers)
    assert server["name"] == "relevo"
    assert "binary_tensor_data" in server["extensions"]
    model = client.client.get_model_metadata(ENDPOINT, headers=client.headers)
    assert model["versions"] == ["1", "2"]
    assert {one["name"]: one["datatype"] for one in model["inputs"]} == {
        "distance": "FP64",
        "carrier": "BYTES",
        "seats": "INT64",
        "is_weekend": "BOOL",
        "built_at": "BYTES",
        "exact": "FP64",
        "scheduled_at": "BYTES",
    }
    assert [one["name"] for one in model["outputs"]] == ["predictions", "prediction_ids"]
    config = client.client.get_model_config(ENDPOINT, "2", headers=client.headers)
    assert config["max_batch_size"] == 10_000
    assert [one["name"] for one in config["input"] if one["optional"]] == ["scheduled_at"]
    index = client.client.get_model_repository_index(headers=client.headers)
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        (ENDPOINT, "1", "READY"),
        (ENDPOINT, "2", "READY"),
    ]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_every_kind_of_column_arrives_as_it_was_sent(
    typed: Home, client: Triton, binary: bool, shape: tuple[int, ...]
) -> None:
    request_id = f"kinds-{binary}-{len(shape)}"
    answer = client.infer(*row(binary=binary, shape=shape).values(), request_id=request_id)
    assert answer.as_numpy("predictions").tolist() == [2.5, 3.5]
    assert answer.as_numpy("predictions").dtype == np.float64
    got = answer.get_response()
    assert (got["id"], got["model_name"], got["model_version"]) == (request_id, ENDPOINT, "1")
    key = load_key(typed.settings.folder("keys"))
    assert [verify(key, one.decode()).endpoint_number for one in answer.as_numpy("prediction_ids")] == [1, 1]
    at = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    rows = logged(typed, request_id)
    assert [list(one[:4]) for one in rows] == [[1.5, "UA", 180, True], [2.5, "Ñandú", 2**60 + 1, False]]
    assert [one[5] for one in rows] == [0.1, -0.0]
    assert [datetime.fromisoformat(one[4]) if isinstance(one[4], str) else one[4] for one in rows] == [at, at]


def test_columns_come_in_any_order_and_numbers_in_any_width(typed: Home, client: Triton) -> None:
    inputs = row()
    inputs["distance"] = tensor("distance", "FP16", np.array([1.5, np.nan], dtype=np.float16))
    inputs["seats"] = tensor("seats", "FP32", np.array([3.0, np.nan], dtype=np.float32))
    inputs["exact"] = tensor("exact", "UINT8", np.array([1, 255], dtype=np.uint8))
    inputs["built_at"] = tensor("built_at", "INT64", np.array([1_000_000, -(2**63)]))
    client.infer(*reversed(inputs.values()), request_id="widths")
    first, second = logged(typed, "widths")
    assert (first[0], first[2], first[5]) == (1.5, 3, 1.0)
    assert (second[0], second[2], second[4], second[5]) == (None, None, None, 255.0)


def test_a_null_in_json_is_a_missing_value(typed: Home) -> None:
    data: dict[str, tuple[str, Any]] = {
        "distance": ("FP64", None),
        "carrier": ("BYTES", None),
        "seats": ("INT64", None),
        "is_weekend": ("BOOL", None),
        "built_at": ("INT64", None),
        "exact": ("FP32", 1),
    }
    inputs = [{"name": n, "datatype": t, "shape": [1], "data": [v]} for n, (t, v) in data.items()]
    with typed.client() as http:
        answer = http.post(INFER, json={"id": "nulls", "inputs": inputs})
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"id", "model_name", "model_version", "outputs"}
        assert answer.json()["outputs"][0] == {
            "name": "predictions", "datatype": "FP64", "shape": [1], "data": [1.0],
        }  # fmt: skip
    assert logged(typed, "nulls")[0][:5] == [None] * 5


def test_outputs_are_chosen_and_each_comes_as_asked(client: Triton) -> None:
    asked = [
        triton.InferRequestedOutput("prediction_ids", binary_data=False),
        triton.InferRequestedOutput("predictions", binary_data=True),
    ]
    answer = client.infer(*row().values(), outputs=asked)
    ids, predictions = answer.get_response()["outputs"]
    assert len(ids["data"]) == 2
    assert "data" not in predictions
    assert answer.as_numpy("predictions").tolist() == [2.5, 3.5]
    only = client.infer(*row().values(), outputs=[triton.InferRequestedOutput("predictions", binary_data=False)])
    assert [one["name"] for one in only.get_response()["outputs"]] == ["predictions"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_taken(client: Triton, algorithm: str) -> None:
    answer = client.infer(
        *row().values(), request_compression_algorithm=algorithm, response_compression_algorithm="gzip"
    )
    assert answer.as_numpy("predictions").tolist() == [2.5, 3.5]


def test_what_unpacks_to_more_than_a_body_may_have_is_refused(typed: Home) -> None:
    with typed.client() as http:
        for packed, encoding in (
            (gzip.compress(bytes(50_000_000)), "gzip"),
            (zlib.compress(bytes(10**7 + 1)), "deflate"),
        ):
            answer = http.post(INFER, content=packed, headers={"content-encoding": encoding})
            assert answer.status_code == 413
            assert "after its decompression" in answer.json()["error"]
        for wrong in (b"no gzip", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"more"):
            answer = http.post(INFER, content=wrong, headers={"content-encoding": "gzip"})
            assert answer.status_code == 400
            assert "gzip" in answer.json()["error"]
        answer = http.post(INFER, content=b"{}", headers={"content-encoding": "br"})
        assert answer.status_code == 415


def test_a_version_is_addressed_by_its_path_and_only_by_who_may(typed: Home, client: Triton) -> None:
    answer = client.infer(*row().values(), model_version="2")
    assert answer.get_response()["model_version"] == "2"
    assert answer.as_numpy("predictions").tolist() == [2.0, 2.0]
    with closing(Triton(typed, typed.token("booking", Role.APPLICATION))) as application:
        assert application.infer(*row().values()).get_response()["model_version"] == "1"
        with pytest.raises(InferenceServerException, match="lacks the permission address_version"):
            application.infer(*row().values(), model_version="2")


def test_the_client_shows_why_it_was_refused(typed: Home, client: Triton) -> None:
    with pytest.raises(InferenceServerException, match="Missing column 'distance'"):
        client.infer(*[one for one in row().values() if one.name() != "distance"])
    wrong = row() | {"carrier": tensor("carrier", "FP64", np.zeros(2))}
    with pytest.raises(InferenceServerException, match="Input 'carrier': expected datatype BYTES, got 'FP64'"):
        client.infer(*wrong.values())
    unknown = [*row().values(), tensor("carier", "FP64", np.zeros(2))]
    with pytest.raises(InferenceServerException, match="Unknown input 'carier'"):
        client.infer(*unknown)
    missing = row() | {"exact": tensor("exact", "FP64", np.array([1, np.nan]))}
    with pytest.raises(
        InferenceServerException, match=r"Column 'exact', row 1: expected a number, got a missing value"
    ):
        client.infer(*missing.values())
    endless = row() | {"exact": tensor("exact", "FP64", np.array([np.inf, 1]))}
    with pytest.raises(InferenceServerException, match=r"Column 'exact', row 0: expected a number, got number inf"):
        client.infer(*endless.values())
    longer = row() | {"exact": tensor("exact", "FP64", np.zeros(3))}
    with pytest.raises(InferenceServerException, match="Input 'exact' has 3 rows, and input 'distance' has 2"):
        client.infer(*longer.values())
    with pytest.raises(InferenceServerException, match=r"There is no endpoint .* Did you mean 'flight-delay'"):
        client.client.infer("flight-dela", list(row().values()), headers=client.headers)
    with pytest.raises(InferenceServerException, match="A token is needed"):
        client.client.infer(ENDPOINT, list(row().values()))
    with pytest.raises(InferenceServerException, match="Unknown output 'predicitons'"):
        client.infer(*row().values(), outputs=[triton.InferRequestedOutput("predicitons")])
    with pytest.raises(InferenceServerException, match="classification is not supported"):
        client.infer(*row().values(), outputs=[triton.InferRequestedOutput("predictions", class_count=1)])


def test_a_matrix_of_numbers_is_all_inputs_in_the_order_of_the_signature(numbers: Home) -> None:
    with closing(Triton(numbers)) as client:
        table = np.array([[1.0, 2.0, np.nan], [4.0, 5.0, 6.0]])
        for binary in (True, False):
            answer = client.infer(
                tensor("input", "FP64", np.nan_to_num(table) if not binary else table, binary=binary),
                request_id=f"matrix-{binary}",
            )
            assert answer.as_numpy("predictions").tolist() == [2.0, 5.0]
        assert logged(numbers, "matrix-True") == [[1.0, 2, None], [4.0, 5, 6.0]]
        with pytest.raises(InferenceServerException, match="Unknown input 'input'"):
            client.infer(tensor("input", "FP64", table[:, :2]))
        with pytest.raises(
            InferenceServerException, match=r"Column 'seats', row 1: expected an integer, got number 5.5"
        ):
            client.infer(tensor("input", "FP64", np.array([[1, 2, 3], [4, 5.5, 6]])))


def test_ten_thousand_rows_are_answered_and_one_more_is_refused(numbers: Home) -> None:
    with closing(Triton(numbers)) as client:
        table = np.arange(30_000, dtype=np.float64).reshape(10_000, 3)
        answer = client.infer(tensor("input", "FP64", table))
        assert (answer.as_numpy("predictions") == table[:, 0] + 1).all()
        with pytest.raises(InferenceServerException, match="at most 10,000 rows, got 10,001"):
            client.infer(tensor("input", "FP64", np.zeros((10_001, 3))))


def one(name: Any, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, **more}]}


def plain(name: Any, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return one(name, datatype, shape, data=data)


def packed(name: str, datatype: str, size: int) -> dict[str, Any]:
    return one(name, datatype, [1], parameters={"binary_data_size": size})


@pytest.mark.parametrize(
    ("header", "binary", "message"),
    [
        ({"inputs": []}, b"", "at least one input"),
        ({}, b"", "missing required field `inputs`"),
        (plain(1, "FP64", [1], [1]), b"", "$.inputs[0].name"),
        (plain("exact", "FP64", [-1], [1]), b"", "$.inputs[0].shape"),
        (plain("exact", "FP64", [], [1]), b"", "expected shape [n]"),
        (plain("exact", "FP64", [2], [1]), b"", "expected 2 elements"),
        (plain("exact", "FP64", [1], 1), b"", "expected a list"),
        (plain("exact", "FP64", [1], ["1"]), b"", "expected a number"),
        (one("exact", "FP64", [1]), b"", "got neither"),
        (plain("exact", "BF16", [1], [1]), b"", "got 'BF16'"),
        (plain("exact", "FP64", [0], []), b"", "Missing columns"),
        (packed("exact", "FP64", 8), b"1234567", "binary_data_size is 8, and 7"),
        (packed("exact", "FP64", 4), b"1234", "take 8 bytes, got 4"),
        (packed("exact", "FP64", True), b"12345678", "binary_data_size is True"),
        (packed("exact", "FP64", 4), b"12345678", "4 bytes belong to no input"),
        (packed("carrier", "BYTES", 4), b"\xff\xff\xff\xff", "bytes end within element 0"),
        (packed("carrier", "BYTES", 5), b"\x01\0\0\0\xff", "not UTF-8"),
        (packed("carrier", "BYTES", 5), b"\0\0\0\0a", "1 bytes are left"),
        (packed("is_weekend", "BOOL", 1), b"\x02", "got byte 2"),
        (packed("seats", "UINT64", 8), b"\xff" * 8, "got integer 18446744073709551615"),
        (plain("built_at", "INT64", [1], [2**62]), b"", "microseconds since 1970"),
        (one("exact", "FP64", [1], parameters={"shared_memory_region": "r"}), b"", "shared memory"),
        ({"id": "x" * 129, **plain("exact", "FP64", [1], [1])}, b"", "at most 128 characters"),
        ({"parameters": {"binary_data_output": 1}, **plain("exact", "FP64", [1], [1])}, b"", "true or false"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_its_cause(typed: Home, header: Any, binary: bytes, message: str) -> None:
    encoded = json.dumps(header).encode()
    with typed.client() as http:
        lengths = {"inference-header-content-length": str(len(encoded))}
        answer = http.post(INFER, content=encoded + binary, headers=lengths)
        assert answer.status_code == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 40, "99999", "٣"])
def test_a_wrong_length_of_the_json_part_is_refused(typed: Home, length: str) -> None:
    with typed.client() as http:
        answer = http.post(INFER, content=b"{}", headers={b"inference-header-content-length": length.encode()})
        assert answer.status_code == 400
        assert isinstance(answer.json()["error"], str)


def test_only_liveness_is_open(typed: Home) -> None:
    assert httpx.get(f"{typed.url}/v2/health/live").status_code == 200
    for path in ("/v2", "/v2/health/ready", f"/v2/models/{ENDPOINT}", "/v2/nowhere"):
        assert httpx.get(f"{typed.url}{path}").status_code == 401


def test_a_path_that_is_not_there_and_a_wrong_method_say_what_is(typed: Home) -> None:
    with typed.client() as http:
        assert "GET /v2/models/NAME" in http.get("/v2/nowhere").json()["error"]
        assert http.get(INFER).status_code == 405
        assert http.get(f"/v2/models/{ENDPOINT}/versions/x").status_code == 400

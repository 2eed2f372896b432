"""Where a version comes from and where it answers: source versions, training set, run, version, bundle, endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relevo.app.services import Services
from relevo.console.layout import dataset_address, model_address
from relevo.console.wording import count, short
from relevo.registry.model import ModelVersion
from relevo.serving.model import Route


@dataclass(frozen=True, slots=True)
class Node:
    """A thing of the lineage: its name, what is known of it in short, and its page when it has one."""

    name: str
    facts: tuple[str, ...]
    address: str | None = None
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Things of one kind; each step is made from the one before it."""

    heading: str
    nodes: tuple[Node, ...]


def lineage(services: Services, version: ModelVersion) -> list[Step]:
    """The way from the data to the endpoint, for one version."""
    facts = version.facts
    route = services.serving.current_route(version.model)
    commit = facts.get("git_commit")
    code = (f"snapshot {short(str(facts.get('snapshot') or ''))}", *([f"git {str(commit)[:8]}"] if commit else []))
    revision = f"contract revision {facts.get('contract_revision', '?')}"
    training_set = Node(
        short(str(facts.get("training_set") or "")),
        (*_rows(facts), revision, *code),
        model_address(version.model, "contract"),
    )
    made_from = [Step("Data", tuple(_datasets(version.model, facts))), Step("Training set", (training_set,))]
    if (imported_from := facts.get("imported_from")) is not None:
        source = Node(
            str(imported_from), (str(facts.get("flavor")), revision), model_address(version.model, "contract")
        )
        made_from = [Step("Imported from MLflow", (source,))]
    return [
        *made_from,
        Step(
            "Run and version",
            (
                Node(
                    f"v{version.number}",
                    (version.stage.value,),
                    model_address(version.model, "versions", version.number),
                ),
                Node("MLflow", (f"run {version.run_id[:12]}",), version.mlflow_page),
            ),
        ),
        Step(
            "Sealed bundle",
            (Node(short(version.bundle), (f"runtime {facts.get('runtime', '?')}", "signed, Ed25519")),),
        ),
        Step("Endpoint", (_endpoint(version, route),)),
    ]


def _datasets(model: str, facts: Mapping[str, object]) -> list[Node]:
    datasets = facts.get("datasets")
    if not isinstance(datasets, Mapping) or not datasets:
        return [Node("not recorded", ())]
    return [
        Node(
            f"{name} v{one['version']}",
            (f"{count(one['rows'])} rows", short(one["digest"])),
            f"{dataset_address(model, name)}?version={one['version']}",
        )
        for name, one in datasets.items()
    ]


def _rows(facts: Mapping[str, object]) -> tuple[str, ...]:
    rows = facts.get("rows")
    if not isinstance(rows, Mapping):
        return ()
    return (f"{count(rows.get('fitted'))} rows fitted", f"{count(rows.get('held_out'))} held out")


def _endpoint(version: ModelVersion, route: Route | None) -> Node:
    share = 0.0 if route is None else next((arm.percent for arm in route.arms if arm.version == version.number), 0.0)
    said = f"{share:g} % of the traffic" if share else "no traffic now"
    return Node(version.model, (said,), model_address(version.model), is_live=share > 0)

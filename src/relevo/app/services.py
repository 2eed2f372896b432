"""The composition root: builds every service of the control plane once, and wires them to one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from relevo.contract.declaring import Declarations
from relevo.contract.model import AppliedContract
from relevo.contract.service import ContractService
from relevo.datasets.collection import Retention
from relevo.datasets.exploration import Exploration
from relevo.datasets.model import DatasetVersion
from relevo.datasets.overview import Reference
from relevo.datasets.service import Datasets
from relevo.errors import NotFound, RelevoError
from relevo.features.comparing import Comparing
from relevo.features.service import FeatureService, Freshness
from relevo.identity.model import Principal
from relevo.identity.service import Identity
from relevo.imports.service import Imports
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Window
from relevo.monitoring.parity import ParityService
from relevo.monitoring.references import References
from relevo.monitoring.service import Monitoring
from relevo.monitoring.service_levels import ServiceLevels
from relevo.monitoring.watch import Watch
from relevo.platform.clock import EventClock, utc_now
from relevo.platform.mlflow import MLflowServer
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Workflows
from relevo.predictions.log import PredictionLog
from relevo.registry.service import Registry
from relevo.releases.canary import CanarySteps
from relevo.releases.load_testing import LoadTesting
from relevo.releases.model import ReleaseState
from relevo.releases.service import Releases
from relevo.releases.shadowing import Shadowing
from relevo.releases.workflow import Deliver
from relevo.retraining.service import Retraining
from relevo.scoring.service import Scoring
from relevo.serving.service import Serving
from relevo.training.rebuilding import TrainingSets
from relevo.training.service import Training

#: A release that ended so says nothing against its version.
TRY_AGAIN = frozenset({ReleaseState.FAILED, ReleaseState.CANCELLED})


@dataclass(slots=True)
class Services:
    """Every service of the control plane. One a process; each is thread-safe."""

    settings: Settings
    state: State
    clock: EventClock
    ledger: Ledger
    identity: Identity
    contracts: ContractService
    declarations: Declarations
    imports: Imports
    datasets: Datasets
    retention: Retention
    exploration: Exploration
    features: FeatureService
    registry: Registry
    log: PredictionLog
    serving: Serving
    workflows: Workflows
    training: Training
    training_sets: TrainingSets
    monitoring: Monitoring
    service_levels: ServiceLevels
    parity: ParityService
    watch: Watch
    releases: Releases
    load_testing: LoadTesting
    canary: CanarySteps
    deliver: Deliver
    retraining: Retraining
    scoring: Scoring
    mlflow: MLflowServer

    def after_apply(self, applied: AppliedContract, actor: Principal) -> str:
        """A contract was applied: train and release what it declares. A release under way is superseded."""
        return self.deliver_revision(applied, actor.name)

    def resume_deliveries(self) -> None:
        """Start the delivery of each contract revision that was applied right before a crash; the others are known."""
        for model in self.contracts.models():
            applied = self.contracts.current(model)
            release_id = _delivery(applied)
            if all(release.id != release_id for release in self.releases.releases(model, limit=None)):
                self.deliver_revision(applied, applied.applied_by)

    def materialise(self, model: str, until: datetime) -> Freshness:
        """Bring the features up to date that live versions and the current contract use."""
        try:
            freshness = self.features.materialise(model, until, live_revisions=self.live_revisions(model))
        except RelevoError as error:
            self.monitoring.report_features(model, error.message)
            raise
        self.monitoring.report_features(model, None)
        return freshness

    def judge_freshness(self, model: str) -> None:
        """Look at how old the newest rows are of the views that live versions use, and raise or resolve the alert."""
        views = self.features.freshness(model, self.live_revisions(model))
        self.monitoring.report_freshness(model, [str(each) for each in views if each.is_fresh is False])

    def live_revisions(self, model: str) -> set[int]:
        """The contract revisions of the versions that are placed on the gateway."""
        placed = [self.registry.version(model, each.version) for each in self.serving.placements(model)]
        return {int(str(version.facts["contract_revision"])) for version in placed}

    def collect(self) -> None:
        """Collect what every model leaves behind.

        Those are old versions of datasets that its contract does not keep and nothing refers to, and features in the
        online store that nothing declares any more.
        """
        for model in self.contracts.models():
            self.retention.collect(model, self.contracts.current(model).contract.sources, utc_now())
        for model in self.contracts.models():
            self.features.collect(model, self.live_revisions(model), utc_now())

    def dataset_references(self, dataset: DatasetVersion) -> list[Reference]:
        """The versions of the model that were trained on this version of a dataset, the newest first."""
        return [
            Reference(version.number, version.stage.value, version.run_id, version.workflow_id)
            for version in self.registry.versions(dataset.model)
            if _is_trained_on(version.facts.get("datasets"), dataset)
        ]

    def deliver_revision(self, applied: AppliedContract, requested_by: str) -> str:
        """Start the release of a revision; one of another revision that is under way is superseded."""
        for release in self.releases.under_way(applied.model):
            if release.id != _delivery(applied):
                self.deliver.cancel(release.id, f"superseded by revision {applied.revision} of the contract")
        return self.deliver.start(
            applied.model,
            release_id=_delivery(applied),
            as_of=self.clock.now(applied.model),
            reason=_why(applied),
            requested_by=requested_by,
        )

    def close(self) -> None:
        """End workflows and children, then the connections."""
        self.exploration.close()
        self.workflows.close()
        self.features.close()
        self.log.close()
        self.state.close()


def _is_trained_on(pins: object, dataset: DatasetVersion) -> bool:
    pin = pins.get(dataset.source) if isinstance(pins, dict) else None
    return isinstance(pin, dict) and pin.get("version") == dataset.version


def _why(applied: AppliedContract) -> str:
    imported = applied.contract.imported
    if imported is None:
        return f"contract revision {applied.revision} applied"
    return f"imported from models:/{imported.name}/{imported.version}"


def _delivery(applied: AppliedContract) -> str:
    return f"deliver-{applied.model}-r{applied.revision}"


def _trained_on(registry: Registry, model: str) -> Iterator[tuple[str, int]]:
    """The versions of datasets that versions of the model were trained on; a release's candidate is one of them."""
    for version in registry.versions(model):
        datasets = version.facts.get("datasets")
        for source, dataset in datasets.items() if isinstance(datasets, Mapping) else ():
            yield source, int(dataset["version"])


def _is_over(workflows: Workflows, workflow_id: str) -> bool:
    try:
        return workflows.status(workflow_id).state != "running"
    except NotFound:
        return True


def compose(settings: Settings) -> Services:
    """Build the control plane's services. Nothing runs until ``Workflows.launch``."""
    state = State(settings.state_database)
    clock, ledger, identity = EventClock(state), Ledger(state), Identity(state)
    objects = Objects(settings.folder("objects"))
    contracts, declarations = ContractService(state, objects, settings, ledger), Declarations(state, ledger)
    datasets = Datasets(state)
    registry = Registry(state, objects, settings, ledger)
    log, serving, workflows = PredictionLog(settings), Serving(state, settings), Workflows(settings, state)
    training = Training(
        settings,
        state,
        workflows,
        contracts=contracts,
        datasets=datasets,
        registry=registry,
        identity=identity,
    )
    monitoring = Monitoring(
        state,
        contracts=contracts,
        references=References(registry),
        serving=serving,
        log=log,
        clock=clock,
        ledger=ledger,
    )
    mlflow = MLflowServer(settings, is_governed=declarations.governs)
    imports = Imports(
        settings,
        state,
        workflows,
        artifacts=mlflow.artifacts,
        contracts=contracts,
        declarations=declarations,
        registry=registry,
        release=lambda applied, requested_by: services.deliver_revision(applied, requested_by),
        is_over=lambda release_id: releases.release(release_id).state in TRY_AGAIN,
    )
    releases = Releases(state, contracts=contracts, registry=registry, serving=serving, ledger=ledger, clock=clock)
    features = FeatureService(state, contracts, settings, clock)
    load_testing = LoadTesting(
        state,
        settings,
        releases=releases,
        registry=registry,
        serving=serving,
        identity=identity,
        features=features,
    )
    shadowing = Shadowing(state, releases=releases, registry=registry, serving=serving, clock=clock)
    canary = CanarySteps(state, releases=releases, registry=registry, serving=serving, clock=clock)
    deliver = Deliver(
        workflows,
        releases=releases,
        load_testing=load_testing,
        shadowing=shadowing,
        canary=canary,
        training=training,
        imports=imports,
        contracts=contracts,
        on_withdrawn=monitoring.report_release,
        on_live=monitoring.report_live,
    )
    retraining = Retraining(
        state,
        contracts=contracts,
        registry=registry,
        monitoring=monitoring,
        releases=releases,
        deliver=deliver,
        ledger=ledger,
    )

    def on_final(window: Window) -> None:
        retraining.on_final(window)

    watch = Watch(state, monitoring=monitoring, workflows=workflows, log=log, on_final=on_final)
    parity = ParityService(
        state,
        settings,
        log=log,
        registry=registry,
        contracts=contracts,
        comparing=Comparing(contracts, settings),
        clock=clock,
    )
    services = Services(
        settings=settings,
        state=state,
        clock=clock,
        ledger=ledger,
        identity=identity,
        contracts=contracts,
        declarations=declarations,
        imports=imports,
        datasets=datasets,
        retention=Retention(
            state,
            settings.folder("tables"),
            references=lambda model: _trained_on(registry, model),
            is_over=lambda workflow_id: _is_over(workflows, workflow_id),
        ),
        exploration=Exploration(settings, objects),
        features=features,
        registry=registry,
        log=log,
        serving=serving,
        workflows=workflows,
        training=training,
        training_sets=TrainingSets(settings, contracts, registry),
        monitoring=monitoring,
        service_levels=ServiceLevels(state, monitoring=monitoring, serving=serving),
        parity=parity,
        watch=watch,
        releases=releases,
        load_testing=load_testing,
        canary=canary,
        deliver=deliver,
        retraining=retraining,
        scoring=Scoring(settings, contracts, registry, serving, clock),
        mlflow=mlflow,
    )
    return services

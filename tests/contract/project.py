"""A small project of a team, written into a folder for tests."""

from __future__ import annotations

from pathlib import Path

CONTRACT = """\
model: parcels
owner: logistics
task: classification
package: parcels
sources:
  orders:
    loader: "parcels.sources:orders"
    key: [order_id]
    event_time: ordered_at
  stock: {loader: "parcels.sources:stock", key: [depot], event_time: counted_at}
features: "parcels.features"
ask: {source: orders, at: ordered_at, inputs: [depot, weight]}
label: {column: is_late, source: orders, available_after: 6h}
training: {entry: "parcels.train:train", holdout: 7d, params: {depth: 4}}
gates:
  - {metric: roc_auc, at_least: 0.6}
monitor: {slices: [depot]}
"""

FILES = {
    "parcels/__init__.py": "",
    "parcels/sources.py": (
        "def orders(since=None, until=None):\n    raise RuntimeError('only a run loads')\n\n\n"
        "def stock(until=None):\n    return []\n\n\n"
        "NOT_A_FUNCTION = 3\n"
    ),
    "parcels/features.py": (
        "from relevo.features import Entity, FeatureView, latest, mean\n\n"
        "depot = Entity('depot', key='depot')\n"
        "shelf = FeatureView('shelf', entity=depot, source='stock', features={'pieces': latest('pieces')}, ttl='6h')\n"
        "load = FeatureView('load', entity=depot, source='stock', features={'pieces_1d': mean('pieces', over='1d')})\n"
    ),
    "parcels/train.py": "def train(training, params):\n    return None\n",
}

CHECKS = (
    "import dataframely as dy\n\n\n"
    "class Orders(dy.Schema):\n"
    "    order_id = dy.String(primary_key=True)\n    courier = dy.String()\n"
)


def write(folder: Path, **changes: str) -> Path:
    """The project in ``folder``; ``changes`` replace files (``contract``, or a module's name)."""
    files = {"relevo.yaml": CONTRACT, **FILES}
    for name, content in changes.items():
        files["relevo.yaml" if name == "contract" else f"parcels/{name}.py"] = content
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder

"""The child of the isolated runtime: the only place outside training where a team's model is unpickled.

``python -m relevo.runtimes.isolated_child FOLDER DESCRIPTOR PARENT``
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from relevo.platform.encoding import parse
from relevo.platform.processes import die_with_parent
from relevo.runtimes import original
from relevo.runtimes.explanation import read_background, sampled
from relevo.runtimes.frames import Framer
from relevo.runtimes.messages import Answer, Closed, Question, receive, send
from relevo.runtimes.model import CATEGORIES_FILE, Signature
from relevo.runtimes.model_folder import FOLDER, load_model


def main(folder: Path, descriptor: int, parent: int) -> None:
    """Loads the model of the bundle, then answers until the parent is gone."""
    die_with_parent(parent, signal.SIGKILL)
    connection = socket.socket(fileno=descriptor)
    try:
        signature = parse(Signature, receive(connection, dict))
        categories = msgspec.json.decode((folder / CATEGORIES_FILE).read_bytes(), type=dict[str, list[str]])
        background = read_background(folder, signature)
        model = load_model(folder / FOLDER)
        framer = Framer(signature, categories)
        framer.of_rows([])  # what pandas makes on its first call: the first request has a limit of its own
    except Exception as error:
        logging.exception("the model could not be loaded")
        send(connection, Answer(error=_told(error)))
        return
    send(connection, Answer())
    while True:
        try:
            question = receive(connection, Question)
            send(connection, _answer(model, question, signature, framer, background))
        except (Closed, OSError):
            return


def _answer(
    model: Any,
    question: Question,
    signature: Signature,
    framer: Framer,
    background: list[list[Any]],
) -> Answer:
    def predict(rows: Sequence[Sequence[Any]]) -> Any:
        return original.predict(model, framer.of_rows(rows), signature)

    try:
        if question.explain:
            return Answer(predictions=[*sampled(predict, question.rows, background)])
        answer = predict(question.rows)
    except Exception as error:
        return Answer(error=_told(error))
    return Answer(predictions=answer.tolist())


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2_000]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

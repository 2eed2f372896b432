"""How a sealed model answers: its signature, the decoders of its requests, and the runtime that was chosen for it.

A runtime is compiled when a version is sealed, and used only if it agrees with the original; otherwise the original
answers in a child process. What the gateway imports from here (``decoders``, ``loading``, ``isolated``, ``linear``,
``lightgbm``, ``xgboost``, ``onnx``) needs neither pandas nor scikit-learn nor MLflow; ``compilation`` and what it uses
runs in training only.
"""

"""Imports: a model that an MLflow client logged and registered here, outside any contract, becomes a governed one.

Its bundle is prepared from the registered files in an environment of its own requirements, compiled where that agrees,
declared with a name and an owner, and put through the same release as what is trained here.
"""

"""Predictions: each row that was answered has an id, lies in the durable log, and is joined with its late label.

Gateway workers write frames to segments; the collector moves these and the labels to Delta tables, exactly once; the
control plane reads both through `relevo.predictions.log.PredictionLog`.
"""

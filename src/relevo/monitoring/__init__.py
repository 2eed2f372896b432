"""What happens to a model after it went live, window by window of event time.

A window is analysed when it ends (provisional) and when its labels are due (final): data quality, drift against the
baseline that was sealed with the version, performance with intervals against its holdout. Verdicts that last become
alerts. `Monitoring` (service) holds the use cases, `Watch` (watch) the durable workflow of one window.
"""

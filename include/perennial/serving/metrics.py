"""What Prometheus can read from the gateway; a registry of its own, so that two apps in one process do not clash."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one data plane. Labels are names from the fleet and closed words, never what a caller sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.answers = Counter("perennial_predictions", "Answers by arm", ["agent", "task", "arm"], registry=own)
        self.failures = Counter(
            "perennial_prediction_errors", "Models that failed", ["agent", "task", "arm"], registry=own
        )
        self.seconds = Histogram(
            "perennial_prediction_seconds", "Time per answer", ["agent", "arm"], buckets=_BUCKETS, registry=own
        )
        self.swaps = Counter("perennial_model_swaps", "Changes of what serves", ["agent"], registry=own)
        self.refused = Counter("perennial_bundles_refused", "Versions that were not loaded", ["agent"], registry=own)
        self.weight = Gauge("perennial_candidate_weight", "The candidate's share of keys", ["agent"], registry=own)
        self.store_up = Gauge("perennial_store_up", "1 while PostgreSQL answers the gateway", registry=own)
        self.recorded = Counter("perennial_recorded", "Answers written behind the request", registry=own)
        self.dropped = Counter("perennial_recordings_dropped", "Answers that were never written", ["why"], registry=own)
        self.queue = Gauge("perennial_recordings_waiting", "Answers waiting to be written", registry=own)
        self.outcomes = Counter("perennial_outcomes", "Outcomes by result", ["result"], registry=own)
        self.ingested = Counter("perennial_ingested", "Records at the door by result", ["kind", "result"], registry=own)
        self.requests = Counter(
            "perennial_http_requests", "Requests by route and status", ["route", "status"], registry=own
        )

    def page(self) -> bytes:
        """The text that ``/metrics`` answers with."""
        return generate_latest(self.registry)

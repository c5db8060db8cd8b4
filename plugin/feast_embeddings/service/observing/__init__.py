"""What is seen of the service from outside: request ids and traces in the log, metrics, telemetry."""

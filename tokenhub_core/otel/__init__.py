"""What happened, told over OTLP in OpenTelemetry's terms; an extra, and off until an endpoint is named."""

"""The pixel's door: HTTP calls become canonical events that are durable before they are answered."""

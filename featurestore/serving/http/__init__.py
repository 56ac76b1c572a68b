"""HTTP/JSON around the handlers: connections, operations, JSON in and out, the OpenAPI document."""

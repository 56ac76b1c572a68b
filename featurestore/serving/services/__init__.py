"""The two services: our packed API and `feast.serving.ServingService`, messages in, messages out."""

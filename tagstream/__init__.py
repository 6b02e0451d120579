"""tagstream: product events from Kafka, tagged on Ray Serve, into Redis and back to Kafka."""

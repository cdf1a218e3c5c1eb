"""Where trainers live: threads, processes, a Ray cluster."""

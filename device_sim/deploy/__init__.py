"""An experiment on real clients: the coordinator's rounds, ended like a simulated run, and reference clients."""

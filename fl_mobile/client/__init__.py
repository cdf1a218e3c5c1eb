"""The client's half of the protocol: a packet comes in, an update goes out as bytes."""

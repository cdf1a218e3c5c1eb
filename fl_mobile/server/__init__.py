"""The server's half of the protocol: packets in, receipts and the next global model out."""

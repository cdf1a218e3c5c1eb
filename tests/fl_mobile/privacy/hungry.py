"""Stands in for an accountant whose claim needs more memory than it may have."""

from fl_mobile.privacy.accounting import MEMORY_BYTES, limit_memory

if __name__ == "__main__":
    limit_memory()
    bytearray(MEMORY_BYTES)

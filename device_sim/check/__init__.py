"""`fl-mobile check`: the promises of a table's kind, tried on one row of somebody's own."""

from device_sim.check.run import Found, check_part

__all__ = ["Found", "check_part"]

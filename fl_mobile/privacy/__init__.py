"""Differential privacy of clients: clip, add exactly, noise once, divide by a public number, and book it."""

from __future__ import annotations

from fl_mobile.privacy.claim import SAMPLINGS, Claim
from fl_mobile.privacy.clipped_sum import ClippedSum
from fl_mobile.privacy.ledger import Ledger, Spent, open_ledger
from fl_mobile.privacy.release import release
from fl_mobile.privacy.rules import PrivacyRules

__all__ = ["SAMPLINGS", "Claim", "ClippedSum", "Ledger", "PrivacyRules", "Spent", "open_ledger", "release"]

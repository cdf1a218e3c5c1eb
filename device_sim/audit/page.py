"""The audit as one HTML file that asks nobody for anything, in the style of `fl-mobile report`."""

from __future__ import annotations

from importlib.resources import files
from xml.etree.ElementTree import Element

from device_sim.audit.canaries import CanaryBound
from device_sim.audit.gaussian import LARGEST
from device_sim.audit.pictures import contact_sheet
from device_sim.audit.run import Audit
from device_sim.report.elements import document, table, tag
from device_sim.report.theme import variables

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def audit_page(audit: Audit, title: str) -> str:
    """Returns the page of an audit."""
    style = variables() + files("device_sim.report").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", at={"charset": "utf-8"}),
        tag("meta", at={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", at={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("title", f"{title} – fl-mobile audit"),
        tag("style", style + ".pictures{max-width:100%;height:auto}"),
    )
    main = tag("main", tag("header", tag("p", "fl-mobile audit"), tag("h1", title)))
    for name, content in (
        ("What one round gives away of a client", canary_part(audit)),
        ("Who was in the training data", member_part(audit)),
        ("Pictures out of one update", picture_part(audit)),
    ):
        main.append(tag("section", tag("h2", name), *content))
    return document(tag("html", head, tag("body", main), at={"lang": "en"}))


def epsilon_told(value: float) -> str:
    """Returns an ε as a person would write it.

    >>> epsilon_told(3.14159), epsilon_told(1e6)
    ('3.14', 'above 1,000,000')
    """
    return f"above {LARGEST:,.0f}" if value >= LARGEST else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def canary_rows(audit: Audit) -> list[tuple[str, ...]]:
    """Returns the rows of the table about canaries."""

    def row(name: str, bound: CanaryBound, claimed: str) -> tuple[str, ...]:
        found = (epsilon_told(bound.epsilon_low), epsilon_told(bound.epsilon))
        return (name, str(bound.canaries), f"{bound.shift:.3g}", *found, claimed)

    as_it_ran, noisy = audit.canaries
    own, claim = ("–" if each is None else epsilon_told(each) for each in audit.claimed)
    return [row("as it ran", as_it_ran, own), row(f"clipped, noise {audit.noise:g}", noisy, claim)]


CANARY_COLUMNS = ("round", "canaries", "separation, sd", "ε at least", "ε estimated", "ε claimed")


def canary_part(audit: Audit) -> list[Element]:
    """Returns the section about canaries."""
    says = (
        f"A canary is a client whose update is a random direction. At δ = {audit.canaries[0].delta:g}, with 99.5 %"
        " confidence, for one client in one round whom everybody else watches; the claim is without amplification."
    )
    return [table(CANARY_COLUMNS, canary_rows(audit)), tag("p", says, at={"class": "note"})]


def member_part(audit: Audit) -> list[Element]:
    """Returns the section about membership."""
    found = audit.members
    rows = [
        (
            f"{100 * found.advantage:.1f} points",
            f"{100 * found.low:.1f} to {100 * found.high:.1f}",
            f"{found.area:.3f}",
            f"{found.members:,} and {found.others:,}",
        )
    ]
    says = "Who calls an example a member where its loss is small: true less false alarms; 0 is guessing."
    return [table(("advantage", "95 % interval", "area under ROC", "examples"), rows), tag("p", says)]


def picture_part(audit: Audit) -> list[Element]:
    """Returns the section with the pictures."""
    if not audit.batches:
        return [tag("p", "The examples are no pictures: nothing was recovered.")]
    out: list[Element] = []
    for (truth, sheets), blank in zip(audit.batches, audit.blank, strict=True):
        rows = [("original", truth), *((sheet.title, sheet.recovery.pictures) for sheet in sheets)]
        says = f"A batch of {len(truth)}, and what its update gives away"
        out += [tag("h3", f"A batch of {len(truth)}, one step"), contact_sheet(rows, says=says)]
        lines = [
            (sheet.title, sheet.recovery.method, f"{sheet.recovery.psnr.mean():.1f}", f"{blank.mean():.1f}")
            for sheet in sheets
        ]
        out.append(table(("seen", "method", "PSNR, dB", "the mean picture's, dB"), lines))
    return out

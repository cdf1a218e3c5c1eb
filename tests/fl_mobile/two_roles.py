"""Both roles in one process, and nothing else: what a driver of the protocol has to do, in forty lines."""

from __future__ import annotations

from collections.abc import Callable

from fl_mobile.agreement import Agreement
from fl_mobile.client.answer import answer, keep, terms_of
from fl_mobile.client.receive import IN_THE_APP, receive
from fl_mobile.client.state import ClientState, pull_of
from fl_mobile.records import FitPlan, ServerState, Update
from fl_mobile.seeds import hashes, seed_for
from fl_mobile.server.publish import Points, assign, publish
from fl_mobile.server.step import ServerRules, folding_of, step
from fl_mobile.tensors import Tensors

Fit = Callable[[Tensors, int, int, Tensors | None, FitPlan], Update]


def federate(
    agreement: Agreement,
    rules: ServerRules,
    plan_of: Callable[[int], FitPlan],
    fit: Fit,
    points: Points,
    *,
    clients: int,
    rounds: int,
) -> ServerState:
    """Returns the server's state after so many rounds in which every client takes part.

    Args:
        plan_of: Round → local training.
        fit: (weights, client, seed, what is added to gradients, plan) → the client's update.
        points: Where the server keeps lattice points.
    """
    state = agreement.algorithm.init(agreement.initial, agreement.spec)
    held, kept = [IN_THE_APP] * clients, [ClientState()] * clients
    for _ in range(rounds):
        state, assignment = assign(agreement, rules, state, plan_of(state.round_num))
        version = publish(agreement, state, points)
        seeds, made = hashes(agreement.seed, state.round_num, "train", index=range(clients)).tolist(), []
        for client in range(clients):
            download = version.download_for(held[client].version)
            decoded, held[client] = receive(agreement, download, version=state.round_num, held=held[client])
            pull = pull_of(agreement, decoded, kept[client])
            update = fit(decoded.weights, client, seeds[client], pull, assignment.plan)
            terms, key = terms_of(agreement, assignment, decoded, {}), seed_for(seeds[client], "codec")
            made.append(answer(terms, update, key, residual=kept[client].residual))
        folded = folding_of(agreement, rules, assignment)([one.packet for one in made])
        for client, receipt in enumerate(folded.receipts):
            kept[client] = keep(agreement, assignment, kept[client], made[client], receipt)
        state, _ = step(
            agreement=agreement,
            rules=rules,
            state=state,
            assignment=assignment,
            decoded=version.decoded,
            folded=folded,
        )
    return state

"""All attacks: who makes them on what, from which formula and source, at what cost, and what to expect.

`where` says where they run: on any recorded run (`framp-audit run`), or as a function of `threat_models.attacks` that
needs more than a run leaves (a query, a crafted message, a choice of records).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from threat_models.adversaries import Capability


@dataclass(frozen=True)
class Attack:
    """One line of the catalogue. without, with_defence: what is expected of its statistic."""

    id: str
    name: str
    adversary: str
    asset: str
    where: str
    formula: str
    source: str
    cost: str
    without: str
    with_defence: str

    @property
    def requires(self) -> tuple[Capability, ...]:
        """What its adversary must be able to do; empty for the operator, who has the run itself."""
        return _REQUIRES.get(self.id, _REQUIRES.get(self.id[0], ()))

    def as_row(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "requires": list(self.requires)}


_REQUIRES: dict[str, tuple[Capability, ...]] = {
    "A": ("uploads",),
    "A11": ("released_models",),
    "B": ("sends",),
    "C": ("requests",),
    "C1": ("requests", "own_records"),
    "D": ("own_records",),
    "D5": ("uploads",),
    "E": ("released_models",),
    "G": ("sends",),
    "G5": ("released_models",),
    "G6": ("released_models",),
}
"""By family, or by attack where it needs something else."""


SERVER, BAD, CLIENT, TOGETHER, USER, OPERATOR = (
    "honest server",
    "malicious server",
    "curious client",
    "coalition",
    "external user",
    "operator",
)
RUN = "framp-audit run"

# fmt: off
CATALOGUE: tuple[Attack, ...] = (
    Attack("A1", "membership from updates, FedMIA", SERVER, "record membership", RUN, "cos(delta, grad l(x)); sum_t -log SF(z_t)", "arXiv 1812.00910; 2402.06289", "a backward pass a record and round", "AUC to 1 for small batches", "AUC <= Phi(mu); a sum over N: signal / sqrt N"),
    Attack("A2", "prototype tracing", SERVER, "record membership", RUN, "<z(p), z(h)>", "Dwork et al. 2015", "a product a record", "AUC Phi(sqrt(d/n) / sqrt 2)", "AUC <= Phi(mu); encrypted: no prototype"),
    Attack("A3", "prototype inversion", SERVER, "single record", RUN, "argmin |h(x) - p|", "this project", "a distance a candidate", "a class of one: the representation itself", "top-1 <= Phi(Phi^-1(1/N) + mu)"),
    Attack("A4", "round difference", SERVER, "added record", "attacks.prototypes.added_record", "sum_{t+1} - sum_t", "arXiv 1805.04049", "one subtraction", "the added representation, to float32", "error sigma sqrt 2 a coordinate"),
    Attack("A5", "label distribution", SERVER, "label distribution", RUN, "counts; mean softmax - g_bias", "arXiv 2105.09369", "none", "total variation 0 by counts, .015 by gradient", "blurred by noise; hidden by encryption"),
    Attack("A6", "gradient inversion: DLG, cosine, analytic linear, FedAvg", SERVER, "record", RUN, "|grad l(x) - g|^2; 1 - cos; G_W / G_b", "arXiv 1906.08935; 2003.14053; 2206.12395", "hundreds of double backward passes", "PSNR over 60 dB at a batch of one", "noise .1 of the clip: under the mean picture"),
    Attack("A7", "hypernetwork leak", SERVER, "update", "attacks.hypernetwork", "grad of bias = grad of theta; rank-one SVD", "this project", "none; one SVD", "difference 0", "no defence but DP or sums"),
    Attack("A8", "property inference", SERVER, "client property", RUN, "logistic regression on descriptors", "arXiv 1805.04049; 2106.03699", "one fit", "AUC by property, n_leaked", "record-level DP does not bound it"),
    Attack("A9", "source inference", SERVER, "source of a record", RUN, "argmin_k l(theta_k, x)", "arXiv 2109.05659", "a forward pass a client", "67 % of 10 published", "1/K behind a secure sum"),
    Attack("A10", "re-identification over rounds", SERVER, "client identity", RUN, "cosine of uploads", "this project", "one product", "near 1", "1/N under noise and fresh pseudonyms"),
    Attack("A11", "links, nodes and degrees of graphs", USER, "edge, node", RUN, "distance of posteriors", "arXiv 2005.02131; 2101.06570", "a distance a pair", "AUC over .95 published", "bounded by edge- or node-level DP"),
    Attack("A12", "side channels: sizes, empty rows", SERVER, "classes held", RUN, "rank correlation within budgets, shuffled; empty rows", "this project", "none", "empty rows: exact", "every size alike, every row noised"),
    Attack("B1", "gradient suppression, model inconsistency", BAD, "one client's update", "attacks.malicious.suppressed", "a dead layer to all but one", "arXiv 2111.07380", "a crafted request", "the sum is the victim's update", "one request for all, or refused; DP holds"),
    Attack("B2", "imprint (Robbing the Fed)", BAD, "record", "attacks.malicious.imprint", "x = (G_W[i] - G_W[i+1]) / (G_b[i] - G_b[i+1])", "arXiv 2110.13057", "a crafted layer", "records of a whole batch", "noise of DP"),
    Attack("B3", "fishing", BAD, "record", "attacks.malicious.fishing", "the row of a class that is never expected", "arXiv 2202.00580", "a crafted classifier", "a batch of one in disguise", "clipping of each record; DP"),
    Attack("B4", "label fishing under secure sums", BAD, "labels", "attacks.malicious.blank_classifier", "1/C - g_bias under a classifier of zeros", "arXiv 2202.00580; 2406.15731", "a crafted model", "labels of a client or of a sum, exactly", "noise of each gradient"),
    Attack("B5", "poisoned generator", BAD, "one client's model", "attacks.malicious.poisoned", "min |theta(v) - wanted|^2 + others' moves", "this project", "thousands of pullbacks", "the victim's model is the server's choice, others' stay", "DP holds for any model"),
    Attack("B6", "prototype-anchor and trap", BAD, "record", "attacks.malicious.anchors, trap", "a far anchor; an encoder that passes one record on", "this project", "a crafted prototype and model", "an update that is not zero: the record is there", "clip and noise of each record"),
    Attack("B7", "encoder swap", BAD, "mean record", "attacks.malicious.identity_encoder", "h = identity: the prototype is the mean record", "this project", "a crafted model", "class means of the data", "noise and clip of prototypes"),
    Attack("B8", "aggregate of one", BAD, "one client's update", "attacks.malicious.sybils", "a cohort of sybils", "this project", "k identities", "the sum is the victim's", "a pinned roster and a least cohort"),
    Attack("B9", "key and parameter downgrade", BAD, "encrypted value", "attacks.malicious.own_context", "the server's own public context", "this project", "a context", "every value", "the pinned hash of the context"),
    Attack("C1", "subtract one's own", CLIENT, "others' mean", "attacks.prototypes.others", "(N P - n p) / (N - n)", "this project", "one subtraction", "with two clients the other's, exactly", "noise of each client"),
    Attack("C2", "intersection over cohorts", CLIENT, "one client's sum", "attacks.prototypes.intersection", "least squares on who was there", "this project", "one inverse", "exact for changing cohorts", "fresh noise a round"),
    Attack("C3", "membership in global prototypes", CLIENT, "record membership", RUN, "distance to the mean of all", "as A2, n = N_c", "a distance a record", "AUC of the formula at N_c", "AUC <= Phi(mu)"),
    Attack("C4", "presence of a class", CLIENT, "class present", RUN, "rows that are sent", "this project", "none", "exact", "noised counts"),
    Attack("C5", "membership from the generated model", CLIENT, "record membership", RUN, "as E1, references from own data", "as E1", "as E1", "as E1", "AUC <= Phi(mu)"),
    Attack("C6", "descriptor search", CLIENT, "descriptor", "attacks.hypernetwork.descriptor_search", "argmin |h(v) - theta|", "this project", "a generation a candidate", "the descriptor", "a noised descriptor is all there is"),
    Attack("C7", "class representative", CLIENT, "class", "attacks.released.representative", "gradient ascent on log p_y", "Fredrikson et al. 2015", "hundreds of passes", "a likely input of the class", "no record is bounded by it"),
    Attack("D1", "leave one out of a secure sum", TOGETHER, "one client's update", "attacks.coalition.leave_one_out", "sum - colluders' values", "PRIVACY of the protocol", "one subtraction", "with K-1 colluders the victim's", "below the threshold uniform"),
    Attack("D2", "shared decryption key", TOGETHER, "encrypted value", "attacks.coalition.decrypts", "a client that holds the key", "threat model", "none", "every value", "key with a party that is not the server"),
    Attack("D3", "CKKS decryption feedback", TOGETHER, "secret key", "attacks.coalition.key_from_feedback", "s = (m' - c0) / c1", "ePrint 2020/1533", "one inverse mod q", "the key", "rounded or flooded outputs alone"),
    Attack("D4", "noise shares taken away", TOGETHER, "noise", "attacks.coalition.remaining_noise", "sigma sqrt((K - t) / K)", "this project", "none", "less noise by t colluders", "noise sized for t"),
    Attack("D5", "two sums of almost one cohort", TOGETHER, "one client's update", "attacks.coalition.difference", "sum_A - sum_B", "this project", "one subtraction", "the client that one sum lacks", "one sum a round; DP"),
    Attack("D6", "sybil descriptors", TOGETHER, "generator", "attacks.coalition.sybil_descriptors", "h at chosen v", "this project", "k clients", "h around a victim's descriptor", "enrolment is once, of pinned clients"),
    Attack("E1", "LOSS, calibration, Attack-R, LiRA, RMIA, BaVarIA, QMIA, label-only", USER, "record membership", RUN, "see attacks.membership", "arXiv 2112.03570; 2312.03262; 2603.11799", "0 to 64 references", "toy: .76 to .94", "AUC <= Phi(mu)"),
    Attack("E2", "RaMIA range query", USER, "records near x", "attacks.membership.range_query", "trimmed mean of scores", "arXiv 2408.05131", "as E1 a query", "over E1", "as E1"),
    Attack("E3", "DUCI data-set usage", USER, "share used", "attacks.membership.dataset_usage", "(mean decision - fpr) / (tpr - fpr)", "Tong et al. 2025", "as E1", "error .01", "not resolvable"),
    Attack("E4", "model inversion", USER, "class", "attacks.released.representative", "as C7", "Fredrikson et al. 2015", "as C7", "as C7", "as C7"),
    Attack("E5", "property inference", USER, "client property", RUN, "as A8, on answers to probes", "as A8", "one fit", "AUC by property", "not bounded on records"),
    Attack("E6", "unlearning check", USER, "removed record", "attacks.released.forgotten", "score before - score after", "this project", "two queries", "tells which record was removed", "each release spends"),
    Attack("E7", "audit artefacts", USER, "records in reports", "attacks.released.artefacts", "names and scores in a report", "this project", "a search", "none may be found", "pictures of public data alone"),
    Attack("F1", "embedding-space canaries", OPERATOR, "prototype noise", RUN, "released - background, by coordinate", "arXiv 2302.03098", "one run", "unbounded", "epsilon bound under the claim"),
    Attack("F2", "gradient canaries", OPERATOR, "update noise", RUN, "the same, at the clip", "arXiv 2305.08846", "one run", "unbounded", "epsilon bound under the claim"),
    Attack("F3", "canary clients", OPERATOR, "client-level noise", RUN, "cosine with a client's direction", "arXiv 2302.03098", "one run", "unbounded", "epsilon bound under the claim"),
    Attack("F4", "mislabelled records", OPERATOR, "black-box membership", RUN, "LOSS of records with false labels", "arXiv 2305.08846", "one run", "bound over 0", "bound far under the claim"),
    Attack("F5", "mechanism-level audit", OPERATOR, "noise scale", RUN, "many replies, one round's claim", "this project", "milliseconds a reply", "unbounded", "bound under the claim"),
    Attack("F6", "grey-box replay", OPERATOR, "sensitivity, draws", RUN, "same draws, neighbouring records", "arXiv 2602.17454", "seconds", "findings", "no finding"),
    Attack("G1", "phantom survivors", BAD, "one sum over too few", RUN, "members who sent nothing, called survivors", "this project", "one crafted round", "a sum under the threshold", "no finding: signatures are counted"),
    Attack("G2", "chosen neighbourhood", BAD, "one client's shares", RUN, "only the server's own clients' keys came", "arXiv 2006.06040", "one crafted round", "every share of a victim", "no finding: keys of a quorum, neighbours drawn by clients"),
    Attack("G3", "split models", BAD, "one group's update", RUN, "a model for each group, a sum over each", "arXiv 2111.07380", "two crafted rounds", "sums over groups", "no finding: masks stand on the request, one quorum a round"),
    Attack("G4", "replaced context", BAD, "encrypted value", RUN, "the server's own context, in three ways", "this project", "a context", "every value", "no finding: the pinned hash"),
    Attack("G5", "unpaid models", USER, "descriptor", RUN, "models of clients that never took part", "this project", "none", "a fresh descriptor at each load", "no finding: refused"),
    Attack("G6", "run-folder thief", USER, "what a run leaves behind", RUN, "counts, hashes, keys, descriptors, modes", "this project", "a search", "exact class counts", "no finding: two folders"),
)
# fmt: on
"""By adversary: A honest server, B malicious server, C curious client, D coalitions, E users, F the operator's audit, G parties
that do not follow the protocol, played against the installed code."""

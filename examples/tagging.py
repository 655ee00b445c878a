"""Where are the genes? A label for each base of DNA, and how near that comes to the best possible.

    python examples/tagging.py

A hidden Markov model makes the sequences: between genes, or at one of the three places of a codon,
each of which prefers other bases. To be found is which bases are coding. On average nothing can be
better than the model that made them: hmmlearn, where it is installed, says how good that is.
"""

import argparse

import numpy as np

from fastlstm.tasks import SequenceTagger

BASES = np.array(list("ACGT"))
# Rows: between genes, and the places 1, 2 and 3 of a codon.
BASE = np.array([[0.3, 0.2, 0.2, 0.3], [0.3, 0.15, 0.45, 0.1], [0.35, 0.2, 0.1, 0.35],
                 [0.05, 0.45, 0.4, 0.1]])  # fmt: skip
NEXT = np.array([[0.98, 0.02, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.05, 0.95, 0, 0]])


def make(count: int, rng: np.random.Generator) -> tuple[list[str], list[np.ndarray]]:
    """DNA of 100 to 300 bases, and which of them are coding."""
    sequences, labels = [], []
    for length in rng.integers(100, 300, count):
        state, states = 0, []
        while len(states) < length:
            states.append(state := rng.choice(4, p=NEXT[state]))
        bases = (rng.random((length, 1)) > BASE[states].cumsum(axis=1)[:, :3]).sum(axis=1)
        sequences.append("".join(BASES[bases]))
        labels.append(np.where(np.array(states) > 0, "coding", "between"))
    return sequences, labels


def one_hot(sequence: str) -> np.ndarray:
    return (np.array(list(sequence))[:, np.newaxis] == BASES).astype(np.float32)


def best_possible(sequences: list[str]) -> list[np.ndarray] | None:
    """The likelier label of each base by the model that made them, if hmmlearn is installed."""
    try:
        from hmmlearn.hmm import CategoricalHMM
    except ImportError:
        return None
    model = CategoricalHMM(4)
    model.n_features, model.startprob_ = 4, NEXT[0]
    model.transmat_, model.emissionprob_ = NEXT, BASE
    ids = [np.searchsorted(BASES, list(one))[:, np.newaxis] for one in sequences]
    return [np.where(model.predict_proba(one)[:, 0] < 0.5, "coding", "between") for one in ids]


def drawn(labels: np.ndarray) -> str:
    return "".join(np.where(labels == "coding", "█", "─"))


def accuracy(predicted: list[np.ndarray], truth: list[np.ndarray]) -> str:
    return f"{np.mean(np.concatenate(predicted) == np.concatenate(truth)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="few sequences, in seconds")
    small, rng = parser.parse_args().small, np.random.default_rng(0)
    (dna, labels), (test, truth) = make(20 if small else 500, rng), make(20, rng)

    tagger = SequenceTagger(epochs=2 if small else 20, random_state=0, verbose=True)
    tagger.fit([one_hot(one) for one in dna], labels)
    predicted = tagger.predict([one_hot(one) for one in test])
    for bases, found, true in zip(test[:3], predicted, truth, strict=False):
        print(f"\n{bases}\n{drawn(found)}  found\n{drawn(true)}  true")

    none = [np.full(len(one), "between") for one in truth]
    print(f"\nalways between genes: {accuracy(none, truth)}\nLSTM: {accuracy(predicted, truth)}")
    if best := best_possible(test):
        print(f"the model that made them: {accuracy(best, truth)}")


if __name__ == "__main__":
    main()

"""Tables of a search over two numbers, made by hand."""

import pandas as pd

KEYS = ("optim.lr", "optim.weight_decay", "seed")
RATES, DECAYS = (1e-3, 0.1, 1e-2), (0.0, 1e-2)  # not in their order


def tables(rates=RATES, decays=DECAYS, **more):
    """A forecast whose error is the learning rate, and a driven law that suffices where it does not."""
    labels = [
        {"optim.lr": lr, "optim.weight_decay": of, "seed": seed} for lr in rates for of in decays for seed in (0, 1)
    ]
    verdict = pd.DataFrame(
        [
            {**label, "family": "scale", "kind": "forecast" if label["optim.lr"] < 0.05 else "driven", "reason": "",
             "law": "weight_decay" if label["optim.lr"] < 0.05 else "discrete",
             "error": label["optim.lr"] * (1 + label["seed"]) if label["optim.lr"] < 0.05 else 1e-7,
             "forecast": "gradient_flow", "forecast_error": label["optim.lr"] * (1 + label["seed"]), **more}
            for label in labels
        ]
    )  # fmt: skip
    return verdict, pd.DataFrame([{**label, "status": "complete", "reason": ""} for label in labels])

"""Every registered method with its NumPy oracle, and the arguments under which both are run."""

from async_optax import weights
from tests.oracles import momentum_rules, rules

NAMES = {"num_workers": 5, "momentum": 0.7}

# case: (method, arguments of ours, oracle, its options)
CASES = {
    "sgd": ("sgd", {}, rules.Sgd, {}),
    "clipped_sgd": ("clipped_sgd", {"max_norm": 0.3}, rules.ClippedSgd, {"max_norm": 0.3}),
    "staleness_aware_sgd": ("staleness_aware_sgd", {}, rules.StalenessAwareSgd, {}),
    "delay_adaptive_sgd": (
        "delay_adaptive_sgd",
        {"num_workers": 3},
        rules.DelayAdaptiveSgd,
        {"num_workers": 3},
    ),
    "ringmaster_sgd": (
        "ringmaster_sgd",
        {"max_staleness": 3},
        rules.RingmasterSgd,
        {"max_staleness": 3},
    ),
    "dc_asgd": ("dc_asgd", {"strength": 0.5}, rules.DcAsgd, {"strength": 0.5}),
    "dc_asgd_adaptive": (
        "dc_asgd_adaptive",
        {"num_workers": 5, "strength": 0.5, "decay": 0.8},
        rules.DcAsgdAdaptive,
        {"strength": 0.5, "decay": 0.8},
    ),
    "normalized_momentum_sgd": (
        "normalized_momentum_sgd",
        {"momentum": 0.7},
        rules.NormalizedMomentumSgd,
        {"momentum": 0.7},
    ),
    "momentum_sgd": (
        "momentum_sgd",
        {"momentum": 0.7},
        momentum_rules.MomentumSgd,
        {"momentum": 0.7},
    ),
    "momentum_sgd-nesterov": (
        "momentum_sgd",
        {"momentum": 0.7, "nesterov": True},
        momentum_rules.MomentumSgd,
        {"momentum": 0.7, "nesterov": True},
    ),
    "linear_weight_prediction": (
        "linear_weight_prediction",
        {"num_steps": 4, "momentum": 0.7},
        momentum_rules.LinearWeightPrediction,
        {"num_steps": 4, "momentum": 0.7},
    ),
    "smega2": ("smega2", NAMES, momentum_rules.Smega2, NAMES),
    "multi_momentum": ("multi_momentum", NAMES, momentum_rules.MultiMomentum, NAMES),
    "dana": ("dana", NAMES, momentum_rules.Dana, NAMES),
    "dana_dc": (
        "dana_dc",
        NAMES | {"strength": 0.5},
        momentum_rules.DanaDc,
        NAMES | {"strength": 0.5},
    ),
    "gap_aware": (
        "gap_aware",
        {"momentum": 0.7, "decay": 0.9},
        momentum_rules.GapAware,
        {"momentum": 0.7, "decay": 0.9},
    ),
    "gap_aware-without-momentum": (
        "gap_aware",
        {"momentum": 0.0, "decay": 0.9},
        momentum_rules.GapAware,
        {"momentum": 0.0, "decay": 0.9},
    ),
    "gap_aware-global": (
        "gap_aware",
        {"momentum": 0.7, "decay": 0.9, "granularity": "global"},
        momentum_rules.GapAware,
        {"momentum": 0.7, "decay": 0.9, "granularity": "global"},
    ),
    "dana_gap_aware": (
        "dana_gap_aware",
        NAMES | {"decay": 0.9},
        momentum_rules.DanaGapAware,
        NAMES | {"decay": 0.9},
    ),
    "nesterov_delayed": (
        "nesterov_delayed",
        {"momentum": 0.7},
        momentum_rules.NesterovDelayed,
        {"momentum": 0.7},
    ),
    "nadam_delayed": ("nadam_delayed", {}, momentum_rules.NadamDelayed, {"weight_decay": 0.01}),
    "parameter_averaging": (
        "parameter_averaging",
        {},
        rules.FedAsync,
        {"mixing": 1.0, "power": 0.0},
    ),
    "diloco": (
        "diloco",
        {"momentum": 0.7},
        momentum_rules.MomentumSgd,
        {"momentum": 0.7, "nesterov": True},
    ),
    "diloco-weighted": (
        "diloco",
        {"momentum": 0.7, "weight_fn": weights.polynomial(0.5)},
        momentum_rules.WeightedMomentumSgd,
        {"momentum": 0.7, "nesterov": True, "power": 0.5},
    ),
    "fedasync": (
        "fedasync",
        {"mixing": 0.8},
        rules.FedAsync,
        {"mixing": 0.8, "power": 0.5},
    ),
    "fedbuff": ("fedbuff", {"momentum": 0.7}, rules.FedBuff, {"momentum": 0.7}),
    "fadas": ("fadas", {"max_staleness": 3}, rules.Fadas, {"max_staleness": 3}),
    "gba": ("gba", {"max_staleness": 3}, rules.Gba, {"max_staleness": 3, "momentum": 0.0}),
    "adadelay": ("adadelay", {"scale": 0.5}, rules.Adadelay, {"scale": 0.5}),
    "adadelay-per-coordinate": (
        "adadelay",
        {"scale": 0.5, "per_coordinate": True},
        rules.AdadelayPerCoordinate,
        {"scale": 0.5},
    ),
    "async_heavy_tailed-adaptive": (
        "async_heavy_tailed",
        {"clipping": "adaptive", "quantile": 0.7, "compensation": 0.5, "max_ratio": 0.1},
        rules.AsyncHeavyTailed,
        {"clipping": "adaptive", "quantile": 0.7, "compensation": 0.5, "max_ratio": 0.1},
    ),
    "async_heavy_tailed": (
        "async_heavy_tailed",
        {"clipping": "coordinate", "threshold": 0.2, "compensation": 0.5},
        rules.AsyncHeavyTailed,
        {"clipping": "coordinate", "threshold": 0.2, "compensation": 0.5},
    ),
}

"""Figures that the paper reports: Narayan et al., ICCV 2021 (arXiv:2108.09301), per cent.

Keys are those of the tables' rows. A row of a zero-shot table has (mAP, F1 at the first K, F1 at
the second K) for ZSL and for GZSL; a row of a standard table has these three for all classes.
`SINCE` has figures of later papers.
"""

from typing import Any

Figures = tuple[float | None, ...]

ZERO_SHOT: dict[int, dict[str, tuple[Figures | None, Figures | None]]] = {
    1: {
        "conse": ((9.4, 21.6, 20.2), (2.1, 7.0, 8.1)),
        "label_em": ((7.1, 19.2, 19.5), (2.2, 9.5, 11.3)),
        "fast0tag": ((15.1, 27.8, 26.4), (3.7, 11.5, 13.5)),
        "attention_per_label": ((10.4, 25.8, 23.6), (3.7, 10.9, 13.2)),
        "attention_per_cluster": ((12.9, 24.6, 22.9), (2.6, 6.4, 7.7)),
        "lesa": ((19.4, 31.6, 28.7), (5.6, 14.4, 16.8)),
        "biam": ((26.3, 33.1, 30.7), (9.3, 16.1, 19.0)),
    },
    2: {
        "conse": ((40.4, 0.4, 0.3), (43.5, 2.6, 2.4)),
        "label_em": ((40.5, 0.5, 0.4), (45.2, 5.2, 5.1)),
        "fast0tag": ((41.2, 0.7, 0.6), (45.2, 16.0, 12.9)),
        "attention_per_cluster": ((40.7, 1.2, 0.9), (44.9, 16.9, 13.5)),
        "lesa": ((41.7, 1.4, 1.0), (45.4, 17.4, 14.3)),
        "biam": ((73.6, 8.3, 5.5), (84.5, 19.1, 15.9)),
    },
    3: {
        "standard_region_features": ((21.1, 28.0, 26.9), (6.8, 12.0, 14.5)),
        "region_context_alone": ((23.7, 31.9, 29.0), (7.6, 14.7, 17.6)),
        "scene_context_alone": ((23.2, 29.4, 27.8), (8.6, 14.0, 16.7)),
        "biam": ((26.3, 33.1, 30.7), (9.3, 16.1, 19.0)),
    },
    # mAP of ZSL alone.
    4: {
        "region_context_layer_norm": ((25.0, None, None), None),
        "region_context_sigmoid": ((24.6, None, None), None),
        "scene_context_softmax": ((24.3, None, None), None),
        "non_local": ((23.1, None, None), None),
        "criss_cross": ((23.9, None, None), None),
        "biam": ((26.3, None, None), None),
    },
    # mAP alone, on NUS-WIDE; on Open Images LESA has 41.9 and 45.5, BiAM 74.0 and 84.8.
    8: {
        "lesa": ((20.5, None, None), (6.4, None, None)),
        "biam": ((27.4, None, None), (10.2, None, None)),
    },
}

# Figures of later systems from their own papers, with what they were obtained with. They belong to
# table 1 (NUS-WIDE); only figures that were compared with their source are here.
SINCE: dict[str, tuple[tuple[Figures, Figures], str]] = {
    "ml_decoder": (
        ((31.1, None, None), (None, None, None)),
        "Ridnik et al. (WACV 2023, abstract); backbone TResNet-L, trained together with the head",
    ),
}

STANDARD: dict[int, dict[str, Figures]] = {
    6: {
        "warp": (3.1, 54.4, 49.4),
        "wsabie": (3.1, 53.8, 49.2),
        "logistic": (21.6, 51.1, 46.1),
        "fast0tag": (22.4, 53.8, 48.6),
        "cnn_rnn": (28.3, 55.2, 50.8),
        "lesa": (31.5, 58.0, 52.0),
        "attention_per_cluster": (31.7, 56.6, 50.7),
        "attention_per_label": (32.6, 56.8, 51.3),
        "biam": (47.8, 59.6, 53.4),
    },
    7: {
        "warp": (46.0, 7.7, 7.4),
        "wsabie": (47.2, 2.2, 2.2),
        "cnn_rnn": (41.0, 9.6, 10.5),
        "logistic": (49.4, 13.3, 11.8),
        "fast0tag": (45.4, 16.2, 13.1),
        "attention_per_cluster": (45.1, 16.3, 13.0),
        "lesa": (45.6, 17.8, 14.5),
        "biam": (85.0, 20.4, 17.3),
    },
}

# Table 5, both on one Tesla V100: training hours on NUS-WIDE and Open Images, milliseconds of
# inference per photo, 10^9 floating-point operations, GB of memory.
COMPUTE: dict[str, dict[str, Any]] = {
    "lesa": {"train_hours": (9.1, 35), "inference_ms": 1.4, "gflop": 0.46, "memory_gb": 2.6},
    "biam": {"train_hours": (7.5, 26), "inference_ms": 2.3, "gflop": 0.59, "memory_gb": 2.8},
}

DATA_SETS = {1: "nus_wide", 2: "open_images", 3: "nus_wide", 4: "nus_wide", 6: "nus_wide"}
DATA_SETS |= {7: "open_images", 8: "nus_wide"}
TITLES = {"nus_wide": "NUS-WIDE", "open_images": "Open Images"}

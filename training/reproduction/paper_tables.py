"""The systems in each of the paper's tables, and the settings tried for each system."""

import dataclasses
from collections.abc import Mapping, Sequence

from biam_tf.errors import UserError, did_you_mean
from biam_tf.models.presets import ABLATIONS, ATTENTION_VARIANTS
from biam_tf.models.systems import SYSTEMS
from training.reproduction import published
from training.reproduction.entries import Entry

# Learning rates tried for every system that is trained by gradient descent, in this order, as far
# as the budget allows.
LEARNING_RATES = ("1e-3", "3e-4", "3e-3", "1e-4")
OTHERS_OPTIMIZER = "training.optimizer={{name: adam, learning_rate: {}, beta_1: 0.9}}"
OWN_RATE = "training.optimizer.learning_rate={}"
# Settings tried for the closed forms.
CLOSED_FORMS = {
    "eszsl": ("gamma: 10, lam: 1", "gamma: 1, lam: 1", "gamma: 100, lam: 1", "gamma: 10, lam: 10"),
}
TITLES = {
    "standard_region_features": "Standard region features",
    "region_context_alone": "RCB alone",
    "scene_context_alone": "SCB alone",
    "pooled_classification": "BiAM, pooled features classified",
    "region_context_layer_norm": "BiAM: RCB with LayerNorm",
    "region_context_sigmoid": "BiAM: RCB with sigmoid",
    "scene_context_softmax": "BiAM: SCB with softmax",
    "non_local": "Non-Local",
    "criss_cross": "Criss-Cross attention",
}


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: in the paper.
        caption: in our words.
        entries: its rows by key; the last is the one that the others are compared with.
        standard: whether all classes are seen, which makes one task; otherwise ZSL and GZSL.
        settings: overrides for all rows.
    """

    number: int
    caption: str
    entries: Mapping[str, Entry]
    standard: bool = False
    settings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Number and caption."""
        return f"Table {self.number}: {self.caption}"

    @property
    def published(self) -> Mapping[str, tuple]:
        """The paper's figures by row; those of table 5 are `published.COMPUTE`.

        Rows of later systems have the figures of their own papers, see `later_sources`.
        """
        if self.standard:
            return published.STANDARD.get(self.number, {})
        own = published.ZERO_SHOT.get(self.number, {})
        return {**own, **{key: published.SINCE[key][0] for key in self.later_sources}}

    def with_rows(self, keys: Sequence[str]) -> "PaperTable":
        """Returns the table with these of its rows, in its own order.

        Other systems that can score its classes with any backbone, and `OF_RECOMMENDED`, are rows,
        too, and come first.

        Raises:
            UserError: there is no such row or system; the message suggests the nearest.
        """
        others = {}
        for key in keys:
            if key in self.entries:
                continue
            if key not in OF_RECOMMENDED and not self._takes(key):
                raise UserError(
                    f"--rows {key}: table {self.number} has no such row"
                    f"{did_you_mean(key, [*self.entries, *OF_RECOMMENDED])}"
                )
            others[key] = OF_RECOMMENDED.get(key) or system_entry(key)
        kept = {key: entry for key, entry in self.entries.items() if key in keys}
        return dataclasses.replace(self, entries=others | kept)

    def _takes(self, name: str) -> bool:
        """Whether a system that has no row can have one."""
        system = SYSTEMS.get(name)
        if system is None or system.uses_joint_space or system.uses_backbone_classes:
            return False  # `make_table` has those that fit the backbone
        return system.open_vocabulary or self.standard

    @property
    def later_sources(self) -> Mapping[str, str]:
        """Where figures of rows that the paper does not have are from, and their backbone."""
        if self.number != 1:
            return {}
        return {key: source for key, (_, source) in published.SINCE.items() if key in self.entries}

    @property
    def published_on(self) -> str:
        """`data.name` of the data set that the paper's figures are of."""
        return published.DATA_SETS[self.number]


RECOMMENDED = (
    "head={preset: recommended}",
    "training.optimizer={name: adamw, learning_rate: 1e-3, beta_1: 0.9, weight_decay: 0.01}",
    "training.loss={}",
)
# Rows of every table, if `--rows` names them: what the parts of `recommended` contribute.
OF_RECOMMENDED = {
    "recommended_with_context_blocks": Entry(
        "BiAM, recommended, with RCB and SCB",
        (*RECOMMENDED, "head.region_context=self_attention", "head.scene_context=channel_gate"),
    ),
    "recommended_without_backbone_classes": Entry(
        "BiAM, recommended, without the backbone's classes",
        (*RECOMMENDED, "head.use_backbone_classes=none"),
    ),
    "recommended": Entry("BiAM, recommended", RECOMMENDED),
}
TABLES = (1, 2, 3, 4, 5, 6, 7, 8)
# Systems that were published after the paper, and the preset of their row. With the sizes of its
# paper, ML-Decoder needs eleven times the operations of `small`.
SUCCESSORS = {
    "sdl": "paper",
    "ml_decoder": "small",
    "query_sharing": "paper",
    "mkt": "paper",
    "dual_prompt": "paper",
    "ot_match": "paper",
}


def make_table(number: int, backbone_classes: bool = False, image_text: bool = False) -> PaperTable:
    """Returns one of `TABLES`; the measurements of table 5 are in `costs`.

    In addition to the paper's rows, tables 1, 2, 6 and 7 have ESZSL and the preset `recommended`;
    tables 1 and 2 the closed form of Fast0Tag and `SUCCESSORS`; table 3 pooled classification.

    Args:
        number: of the table.
        backbone_classes: whether tables 1 and 2 have a row of the tagger without training, which
            needs a backbone with classes of its own. Defaults to `False`.
        image_text: whether tables 1, 2, 6 and 7 have rows of an image-text model without training,
            which need its features and its text embeddings. Defaults to `False`.
    """
    clip = {"clip": system_entry("clip"), "clip_scene": _CLIP_SCENE} if image_text else {}
    if number in (1, 2):
        others = [name for name in published.ZERO_SHOT[number] if name != "biam"]
        entries = {name: system_entry(name) for name in ("eszsl", "fast0tag_linear", *others)}
        entries |= {name: system_entry(name, preset) for name, preset in SUCCESSORS.items()}
        if backbone_classes:
            entries["backbone_classes"] = system_entry("backbone_classes")
        caption = "state of the art, multi-label zero-shot classification"
        return PaperTable(number, caption, entries | clip | _ours())
    if number in (6, 7):
        others = [name for name in published.STANDARD[number] if name != "biam"]
        entries = {name: system_entry(name) for name in ("eszsl", *others)}
        caption = "standard multi-label classification, all classes seen"
        return PaperTable(number, caption, entries | clip | _ours(), True, ("data.all_seen=true",))
    if number == 3:
        entries = _changed_heads(ABLATIONS) | {"biam": configured_entry()}
        return PaperTable(3, "contribution of each block", entries)
    if number == 4:
        entries = _changed_heads(ATTENTION_VARIANTS) | {"biam": configured_entry()}
        return PaperTable(4, "attention variants", entries)
    if number == 5:
        entries = {name: system_entry(name) for name in ("eszsl", "lesa")}
        return PaperTable(5, "costs of training and inference", entries | _ours())
    if number == 8:
        entries = {"lesa": system_entry("lesa"), "biam": configured_entry()}
        settings = ("backbone.name=resnet50", "backbone.trainable=false")
        return PaperTable(8, "ResNet-50 of DINO as backbone", entries, settings=settings)
    raise ValueError(f"no table {number}")


def system_entry(name: str, preset: str = "paper") -> Entry:
    """Returns the row of another system than BiAM, with its candidate settings."""
    system = SYSTEMS[name]
    if not system.trained:
        return Entry(system.title, (f"head={{system: {name}}}",))
    if system.fit is not None:
        forms = CLOSED_FORMS.get(name, ())
        candidates = tuple((f"head={{system: {name}, {form}}}",) for form in forms)
        return Entry(system.title, (f"head={{system: {name}}}",), candidates)
    candidates = tuple((OTHERS_OPTIMIZER.format(rate),) for rate in LEARNING_RATES)
    own = "" if preset == "paper" else f", preset: {preset}"
    shared = (f"head={{system: {name}{own}}}", "training.loss={}", "training.ema_momentum=null")
    return Entry(f"{system.title}{own and f', {preset}'}", shared, candidates)


# The model's own logit for photo and text; `clip` itself chooses how much regions count.
_CLIP_SCENE = Entry("CLIP, without training, scene alone", ("head={system: clip, preset: scene}",))


def _changed_heads(changes: Mapping[str, Mapping]) -> dict[str, Entry]:
    """Rows of the configured BiAM with some settings of its head replaced."""
    return {
        name: Entry(
            TITLES[name],
            tuple(f"head.{key}={value}" for key, value in own.items()),
            _own_rates(),
        )
        for name, own in changes.items()
    }


def configured_entry() -> Entry:
    """Returns the row of BiAM as configured."""
    return Entry("BiAM, as configured", (), _own_rates())


def _ours() -> dict[str, Entry]:
    return {"recommended": OF_RECOMMENDED["recommended"], "biam": configured_entry()}


def _own_rates() -> tuple[tuple[str, ...], ...]:
    """The configured learning rate first, then those tried for the other systems."""
    return ((), *((OWN_RATE.format(rate),) for rate in LEARNING_RATES))

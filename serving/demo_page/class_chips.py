"""The classes of a list, unknown ones marked in their place with the nearest known to click."""

from collections.abc import Sequence

from serving.demo_page.class_list import KnownClasses, UnknownClass
from serving.demo_page.markup import render

# Of a longer list only what is wrong is shown: 5,000 chips help nobody.
_CHIPS, _UNKNOWN = 30, 8

_LINE = """
<div class="chips" aria-live="polite">
<span class="count">{{ count }}</span>
{% for chip in chips %}
{% if chip.unknown %}
<span class="chip unknown" role="alert"><span class="chip-name">{{ chip.name }}</span>
<span class="chip-why">unknown{{ ' word: ' ~ chip.word if chip.word != chip.name }}</span>
{% for other in chip.nearest %}
<button type="button" data-name="{{ chip.name }}" data-other="{{ other }}"
 aria-label="Take {{ other }} for {{ chip.name }}">{{ other }}</button>
{% endfor %}
<button type="button" class="leave-out" data-name="{{ chip.name }}" data-other=""
 aria-label="Leave out {{ chip.name }}">leave out</button></span>
{% else %}
<span class="chip {{ chip.group }}">{{ chip.name }}</span>
{% endif %}
{% endfor %}
{% if more %}<span class="count">and {{ '{:,}'.format(more) }} more unknown</span>{% endif %}
{% if unknown > 1 %}
<button type="button" class="leave-out-all" data-name="" data-other="">
leave out all unknown</button>
{% endif %}
</div>
"""

# A press says which name is to be replaced, and by what.
ON_LOAD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (button) trigger('click', {name: button.dataset.name, other: button.dataset.other});
});
"""


def draw_chips(known: KnownClasses, names: Sequence[str], groups: Sequence[str]) -> str:
    """Returns the classes as HTML.

    Args:
        known: what the model can score.
        names: the classes, in the order of the list.
        groups: "seen" or "unseen" for each.
    """
    unknown = {each.name: each for each in known.unknown(names)}
    shown = list(zip(names, groups, strict=True))
    if len(names) > _CHIPS:
        shown = [(name, group) for name, group in shown if name in unknown][:_UNKNOWN]
    return render(
        _LINE,
        count=_count(len(names), len(unknown)),
        chips=[_chip(known, name, group, unknown.get(name)) for name, group in shown],
        more=len(unknown) - sum(name in unknown for name, _ in shown),
        unknown=len(unknown),
    )


def _chip(known: KnownClasses, name: str, group: str, unknown: UnknownClass | None) -> dict:
    if unknown is None:
        return {"name": name, "group": group, "unknown": False}
    nearest = known.suggestions(unknown)
    return {"name": name, "unknown": True, "word": unknown.word, "nearest": nearest}


def _count(names: int, unknown: int) -> str:
    if not names:
        return ""
    said = "1 class" if names == 1 else f"{names:,} classes"
    return f"{said}, {unknown:,} unknown:" if unknown else f"{said}:" if names <= _CHIPS else said

"""A photo with its evidence as HTML; its regions may be buttons."""

from PIL import Image

from serving.demo_page.evidence import as_data_uri
from serving.demo_page.markup import render

_PANEL = """
<figure class="evidence">
<div class="frame">
<div class="photo" style="aspect-ratio:{{ width }}/{{ height }};--ratio:{{ width / height }}">
<img src="{{ source }}" alt="{{ alt }}" width="{{ width }}" height="{{ height }}">
{% if rows %}
<div class="regions" role="group" aria-label="Regions of the photo: choose one to find more like it"
 data-columns="{{ columns }}" style="grid-template-columns:repeat({{ columns }},1fr)">
{% for row in range(rows) %}{% for column in range(columns) %}
<button type="button" data-choice="{{ row * columns + column }}"
 tabindex="{{ 0 if row == rows // 2 and column == columns // 2 else -1 }}"
 aria-label="More like row {{ row + 1 }}, column {{ column + 1 }}"></button>
{% endfor %}{% endfor %}
</div>
{% endif %}
</div>
</div>
<figcaption>{{ caption }}</figcaption>
</figure>
"""

_EMPTY = (
    '<figure class="evidence empty"><div class="frame">{{ text }}</div>'
    "<figcaption></figcaption></figure>"
)


def draw_panel(
    picture: Image.Image, alt: str, caption: str, regions: tuple[int, int] | None = None
) -> str:
    """Returns a picture with a caption.

    Args:
        picture: to show.
        alt: what is to be seen on it, for those who can't see it.
        caption: below it.
        regions: (h, w) regions that can be pressed; None: none can.
    """
    rows, columns = regions or (0, 0)
    width, height = picture.size
    return render(
        _PANEL,
        source=as_data_uri(picture),
        width=width,
        height=height,
        alt=alt,
        caption=caption,
        rows=rows,
        columns=columns,
    )


def empty_panel(text: str) -> str:
    """Returns the place of a picture before there is one."""
    return render(_EMPTY, text=text)

"""HTML whose texts are escaped, for browsers and for Gradio."""

import functools

import jinja2
import markupsafe

# Text that was made by `render`, and is not escaped again.
Html = markupsafe.Markup

# Gradio takes what it shows for a template once more: a class called ${x} would be run.
_GRADIO = {ord("{"): "&#123;", ord("}"): "&#125;", ord("$"): "&#36;", ord("`"): "&#96;"}


def render(template: str, **values) -> str:
    """Fills a Jinja template; every value is escaped but `Html`."""
    return _template(template).render(**values)


@functools.cache
def _template(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(text)


def _escape(value):
    if isinstance(value, Html):
        return value
    return Html(str(markupsafe.escape(value)).translate(_GRADIO))


def message(text: str, kind: str = "quiet") -> str:
    """Returns a line to show beside what it is about: "quiet", "good" or "error"."""
    role = "alert" if kind == "error" else "status"
    return render(_MESSAGE, lines=text.splitlines(), kind=kind, role=role)


_MESSAGE = """\
<div class="message {{ kind }}" role="{{ role }}">
{% for line in lines %}<div>{{ line }}</div>{% endfor %}
</div>"""

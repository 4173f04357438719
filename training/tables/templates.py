"""HTML from Jinja templates, in which every value is escaped unless it is markup already."""

import functools
from collections.abc import Mapping

import jinja2
from markupsafe import Markup


def render(package: str, template: str, values: Mapping[str, object]) -> Markup:
    """Returns a template filled in.

    Args:
        package: the Python package in whose folder the template lies, such as "training.report".
        template: its file name.
        values: by name; one that the template uses and that is missing is an error.
    """
    return Markup(_environment(package).get_template(template).render(values))


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""HTML from Jinja templates, in which every value is escaped unless it is markup already."""

import functools
from collections.abc import Mapping

import jinja2
from markupsafe import Markup

from biam_tf import contact_sheet


def render(package: str, template: str, values: Mapping[str, object]) -> Markup:
    """Returns a template filled in.

    Args:
        package: the Python package in whose folder the template lies, such as "training.report".
            Templates may include those in the folder of this module, such as palette.css, the
            colors and fonts of all pages.
        template: its file name.
        values: by name; one that the template uses and that is missing is an error.
    """
    return Markup(_environment(package).get_template(template).render(values))


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("training.tables", ".")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Pages have the colors of the contact sheet, which shows the same photos.
    environment.globals["colors"] = contact_sheet
    return environment

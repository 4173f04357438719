"""Parses XML of other programs without expanding its entities."""

from typing import Any

from biam_tf.errors import UserError


def parse_xml(content: bytes) -> Any:
    """Returns the root element of an XML document, of `xml.etree.ElementTree`.

    Raises:
        ValueError: it is not well-formed, or declares entities or a document type, which are
            never expanded.
        UserError: defusedxml is not installed.
    """
    try:
        import defusedxml
        from defusedxml import ElementTree
    except ImportError:
        raise UserError("reading XML needs defusedxml; run pip install 'biam-tf[import]'") from None
    try:
        return ElementTree.fromstring(content, forbid_dtd=True)
    except defusedxml.DefusedXmlException:
        raise ValueError("declares a document type or entities, which are not read") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"is not well-formed XML ({error})") from None
    except (LookupError, UnicodeError) as error:
        raise ValueError(f"has an encoding that cannot be read ({error})") from None

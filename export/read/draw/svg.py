"""SVG pictures that need nothing but a browser."""

import re
from xml.etree import ElementTree as ET


class Element:
    """One element."""

    def __init__(self, node: ET.Element) -> None:
        self.node = node

    def add(self, tag: str, text: str | None = None, **attributes: str | float) -> "Element":
        """A new element within this one; class_ and text_anchor are written as class and text-anchor."""
        node = ET.SubElement(self.node, tag)
        for name, value in attributes.items():
            written = value if isinstance(value, str) else f"{value:.1f}"
            node.set(name.rstrip("_").replace("_", "-"), written)
        node.text = None if text is None else clean(text)
        return Element(node)


class Picture(Element):
    """A whole picture; `str` gives its text.

    Args:
        name: class of the picture, which its style begins every rule with.
        width, height: in pixels.
        title, words: what a screen reader says.
        style: CSS. It names colours as variables with a default: by itself a picture is dark on white, and a page that
            it is put into can colour it as it colours everything else.
    """

    def __init__(self, name: str, width: float, height: float, title: str, words: str, style: str) -> None:
        size = {"width": f"{width:.0f}", "height": f"{height:.0f}", "viewBox": f"0 0 {width:.0f} {height:.0f}"}
        namespace = {"xmlns": "http://www.w3.org/2000/svg"}
        super().__init__(ET.Element("svg", {**namespace, "class": name, "role": "img", **size}))
        self.add("title", title)
        self.add("desc", words)
        self.add("style", style)
        self.add("rect", class_="background", width="100%", height="100%")

    def __str__(self) -> str:
        return ET.tostring(self.node, encoding="unicode")


def clean(text: str) -> str:
    """Without the characters that XML cannot hold: names in a file may be anything."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)

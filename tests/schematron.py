"""The rules of n42.sch applied to an XML document.

The query binding is XPath 2.0, which libxml2 does not speak; elementpath evaluates it. `id()` finds what the schema
types as ID; a plain parser knows only `xml:id`, so the document's `id` attributes are given that name beforehand.

Two patterns walk lists by index, which takes elementpath a time that grows with the square of the length. On long lists
the same question is put to Python instead (BY_HAND); a test shows that both answer alike on short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import elementpath
from lxml import etree

SCH = "{http://purl.oclc.org/dsdl/schematron}"
N42 = "{http://physics.nist.gov/N42/2011/N42}"
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
LONG_TEXT = 150


class Rule(NamedTuple):
    context: str
    lets: list[tuple[str, str]]
    asserts: list[str]


class Rules:
    """The patterns of a Schematron file, abstract ones filled in: `(name, rules)`."""

    def __init__(self, path: Path) -> None:
        schema = etree.parse(str(path)).getroot()
        every = list(schema.iter(f"{SCH}pattern"))
        abstract = {p.get("id"): p for p in every if p.get("abstract") == "true"}
        self._parser = elementpath.XPath2Parser(namespaces={"n42": N42[1:-1]})
        self._parsed: dict[str, Any] = {}
        self.patterns: list[tuple[str, list[Rule]]] = []
        for pattern in every:
            if pattern.get("abstract") != "true":
                params = {f"${p.get('name')}": p.get("value") for p in pattern.iter(f"{SCH}param")}
                body = abstract[pattern.get("is-a")] if pattern.get("is-a") else pattern
                self.patterns.append((pattern.get("id"), [_rule(r, params) for r in body.iter(f"{SCH}rule")]))

    def broken(self, document: bytes, *, by_hand: bool = True) -> list[str]:
        """Return the names of the patterns whose assertions fail, once per failure."""
        root = etree.fromstring(document)
        for element in root.iter(etree.Element):
            if "id" in element.attrib:
                element.attrib[XML_ID] = element.attrib.pop("id")
        tree = elementpath.get_node_tree(root.getroottree())
        found = []
        for name, rules in self.patterns:
            seen: list[Any] = []
            for rule in rules:
                context = elementpath.XPathContext(tree)
                for node in self._parse(f"//{rule.context}").select(context):
                    if any(node is other for other in seen):
                        continue
                    if len(rules) > 1:  # the first rule of a pattern that fits a node is the only one
                        seen.append(node)
                    if by_hand and name in BY_HAND and isinstance(getattr(node, "value", None), etree._Element):
                        element = node.value
                        if sum(len(x.text or "") for x in element.iter(f"{N42}ChannelData")) > LONG_TEXT:
                            found += [name] * (not BY_HAND[name](element))
                            continue
                    found += [name] * sum(1 for ok in self._answers(tree, node, rule) if not ok)
        return found

    def _answers(self, tree: Any, node: Any, rule: Rule) -> Iterator[bool]:
        variables: dict[str, Any] = {}
        for name, value in rule.lets:
            context = elementpath.XPathContext(tree, item=node, variables=dict(variables))
            variables[name] = self._parse(value).get_results(context)
        for test in rule.asserts:
            context = elementpath.XPathContext(tree, item=node, variables=dict(variables))
            token = self._parse(test)
            yield bool(token.boolean_value(list(token.select(context))))

    def _parse(self, text: str) -> Any:
        if text not in self._parsed:
            self._parsed[text] = self._parser.parse(text)
        return self._parsed[text]


def _rule(rule: Any, params: dict[str, str]) -> Rule:
    def fill(text: str) -> str:
        for name in sorted(params, key=len, reverse=True):
            text = text.replace(name, params[name])
        return text

    lets = [(x.get("name"), fill(x.get("value"))) for x in rule.iter(f"{SCH}let")]
    return Rule(fill(rule.get("context")), lets, [fill(x.get("test")) for x in rule.iter(f"{SCH}assert")])


# ----------------------------------------------------------------------------------------------------------------


def compressed(channel_data: Any) -> bool:
    """Every zero is followed by a whole number above zero; the last value is none."""
    values = [float(x) for x in channel_data.text.split()]
    return values[-1] != 0 and all(b > 0 and b % 1 == 0 for a, b in pairwise(values) if a == 0)


def boundaries_fit(spectrum: Any) -> bool:
    """An energy calibration by boundaries has one more of them than the spectrum has channels."""
    told = spectrum.get("energyCalibrationReference")
    holder = [x for x in spectrum.getroottree().getroot().iter(f"{N42}EnergyCalibration") if x.get(XML_ID) == told]
    boundaries = holder[0].findtext(f"{N42}EnergyBoundaryValues") if holder else None
    if not boundaries:
        return True
    data = spectrum.find(f"{N42}ChannelData")
    values = [float(x) for x in data.text.split()]
    channels = len(values)
    if data.get("compressionCode") == "CountedZeroes":
        zeros = [i for i, v in enumerate(values[:-1]) if v == 0]
        channels = len(values) - 2 * len(zeros) + int(sum(values[i + 1] for i in zeros))
    return len(boundaries.split()) == channels + 1


BY_HAND: dict[str, Callable[[Any], bool]] = {"CompressionCheck": compressed, "EBoundariesChannelsCheck": boundaries_fit}

"""ISO Schematron rules with XPath 2.0, as far as those of N42 need it: lxml's own runs XSLT 1 rules only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from elementpath import XPathContext
from elementpath.xpath30 import XPath30Parser
from lxml import etree

S = "{http://purl.oclc.org/dsdl/schematron}"
NAMESPACES = {"n42": "http://physics.nist.gov/N42/2011/N42"}


def _xpath(text: str, values: dict[str, str]) -> str:
    """Return the expression with parameters in place, and id() by the attribute `id`, for no DTD types it."""
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"${name}", values[name])
    return re.sub(r"(?<![\w-])id\(([^()]*)\)", r"(let $i := tokenize(string(\1), '\\s+') return //*[@id = $i])", text)


class Schematron:
    """The rules of one file. `failures(document)` gives the failed assertions, `checked` counts those evaluated."""

    def __init__(self, path: Path) -> None:
        root = etree.parse(str(path)).getroot()
        patterns = root.findall(f"{S}pattern")
        abstract = {p.get("id"): p for p in patterns if p.get("abstract") == "true"}
        self.checked = 0
        self._rules = []
        for p in patterns:
            if p.get("abstract") == "true":
                continue
            values = {q.get("name"): q.get("value") for q in p.findall(f"{S}param")}
            for rule in (abstract[p.get("is-a")] if p.get("is-a") else p).findall(f"{S}rule"):
                self._rules.append((p.get("id"), rule, values))

    def failures(self, document: bytes) -> list[str]:
        root = etree.fromstring(document)
        tree = XPathContext(root).root
        failed = []
        for name, rule, values in self._rules:
            context = _xpath(rule.get("context"), values)
            for node in self._select(f"//{context}", tree, tree, {}):
                variables: dict[str, Any] = {}
                for let in rule.findall(f"{S}let"):
                    value = self._select(_xpath(let.get("value"), values), tree, node, variables)
                    variables[let.get("name")] = value if len(value) != 1 else value[0]
                for check in rule.findall(f"{S}assert"):
                    self.checked += 1
                    (held,) = self._select(f"boolean({_xpath(check.get('test'), values)})", tree, node, variables)
                    if not held:
                        failed.append(f"{name}: {''.join(check.itertext())[:200]}")
        return failed

    def _select(self, text: str, tree: Any, node: Any, variables: dict[str, Any]) -> list[Any]:
        parser = XPath30Parser(namespaces=NAMESPACES, variable_types=None)
        return list(parser.parse(text).select(XPathContext(tree, item=node, variables=dict(variables))))

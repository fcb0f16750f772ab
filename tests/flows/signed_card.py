"""Checks the signatures of a node's cards with the official client; the node's address is the argument."""

import json
import sys
import urllib.request

from google.protobuf.json_format import ParseDict
from jwt import PyJWK

from a2a.types import a2a_pb2 as a2a
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier


def fetch(url: str) -> dict:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def key(kid: str | None, jku: str | None) -> PyJWK:
    return next(PyJWK(one) for one in fetch(jku)["keys"] if one["kid"] == kid)


def card(json_card: dict) -> a2a.AgentCard:
    return ParseDict(json_card, a2a.AgentCard())


url = sys.argv[1]
verify = create_signature_verifier(key, ["ES256"])
for path in ["", "/agents/echo", "/agents/curious"]:
    written = fetch(f"{url}{path}/.well-known/agent-card.json")
    verify(card(written))
    written["description"] += "!"
    try:
        verify(card(written))
    except InvalidSignaturesError:
        continue
    raise AssertionError("a changed card is taken for a right one")
for written in fetch(f"{url}/agents")["agents"]:
    verify(card(written))
print("the signatures are right")

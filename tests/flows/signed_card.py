"""Checks the signatures of a node's cards with the official client.

Arguments: the node's address, the token of a caller or nothing, and the paths of the cards.
"""

import json
import sys
import urllib.request

from google.protobuf.json_format import ParseDict
from jwt import PyJWK

from a2a.types import a2a_pb2 as a2a
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier

url, token, *paths = sys.argv[1:]
headers = {"A2A-Version": "1.0"} | ({"Authorization": f"Bearer {token}"} if token else {})


def fetch(url: str) -> dict:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return json.load(answer)


def key(kid: str | None, jku: str | None) -> PyJWK:
    return next(PyJWK(one) for one in fetch(jku)["keys"] if one["kid"] == kid)


def card(json_card: dict) -> a2a.AgentCard:
    return ParseDict(json_card, a2a.AgentCard())


verify = create_signature_verifier(key, ["ES256"])
for path in paths:
    written = fetch(f"{url}{path}")
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

"""An identity provider: signs tokens with a real key, and publishes the public one in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER, AUDIENCE = "https://issuer.example/realms/payments", "featurestore"


class Issuer:
    """Signs tokens, and publishes its keys in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rotate("first")

    def rotate(self, key_id: str) -> None:
        """Sign with another key from now on."""
        self.key_id, self.key = key_id, rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.path.write_text(json.dumps({"keys": [{**public, "kid": key_id, "use": "sig"}]}))

    def token(self, *roles: str, key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        """Of a model with roles, for an hour."""
        says = {"iss": ISSUER, "aud": AUDIENCE, "sub": "risk-model", "exp": int(time.time()) + 3600, "roles": roles}
        says.update(claims)
        return jwt.encode(says, self.key if key is None else key, algorithm=algorithm, headers={"kid": self.key_id})
